"""Offered load is sent by the clock, and every answer is counted by its status."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import overload, picture
from benchmarks.figures import Figures
from benchmarks.offered import offer
from benchmarks.servers import BenchmarkError


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing of connections that the test gave up."""


class _Alternating(BaseHTTPRequestHandler):
    """Serves every other request, and closes the connection of those that it refuses."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body in one packet, as Lantern sends them

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1  # type: ignore[attr-defined]
        status = 200 if self.server.asked % 2 else 503  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", "3")
        if status == 503:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(b"{}\n")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    with _Server(("127.0.0.1", 0), _Alternating) as server:
        server.asked = 0  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield SimpleNamespace(port=server.server_port)
        server.shutdown()
        thread.join()


def test_every_request_that_fell_due_is_answered_and_counted(server: Any) -> None:
    seen = offer(server, "/predict", [b"{}", b"{} "], rate=100, seconds=1)
    assert not seen.faults
    assert seen.offered == 100
    assert (seen.count(200), seen.count(503)) == (50, 50)
    assert seen.lasted >= 0.9
    assert 0 < seen.quantile_ms(200, 0.5) <= seen.quantile_ms(200, 0.99)
    assert seen.quantile_ms(404, 0.5) == 0


def test_a_rate_that_this_program_can_not_keep_to_is_no_measurement(server: Any) -> None:
    with pytest.raises(BenchmarkError, match="more than this program can send|leaves more"):
        offer(server, "/predict", [b"{}"], rate=1_000_000, seconds=0.002)


def test_goodput_is_drawn_once_it_was_measured(tmp_path: Any) -> None:
    names = ("good_rps", "p99_ms", "refused_p99_ms")
    series = {name: [1.0, 2.0, 3.0] for name in names}
    measured = {overload.at(load, who): series for who, ls in overload.LOADS.items() for load in ls}
    figures: Figures = {overload.PART: measured}
    assert not picture.can_draw_overload({})
    assert picture.can_draw_overload(figures)
    picture.draw_overload(tmp_path / "overload.png", figures, "a caption")
    assert (tmp_path / "overload.png").read_bytes().startswith(b"\x89PNG")
