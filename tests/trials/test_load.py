"""The load notes everything that isn't a right answer in time, and lets nothing vanish."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from trials.expected import post
from trials.load import Item, Load, Plan, Tally

RIGHT = {"probabilities": {"class_0": 0.25, "class_1": 0.75}, "model_version": "1"}
ITEM = Item("/predict", post("/predict", b"{}"), {"1": [[0.25, 0.75]], "2": [[0.5, 0.5]]})

Answer = Callable[[int], bytes | None]
"""Gives the bytes to answer a request of this number with; none closes the connection."""


@contextmanager
def server(answer: Answer) -> Iterator[int]:
    """Serve requests of the one kind on a free port; ``answer`` is asked for each."""
    counts = iter(range(1_000_000))

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(65536):
                assert data == ITEM.request
                answered = answer(next(counts))
                if answered is None:
                    return
                self.request.sendall(answered)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield serving.server_address[1]
        serving.shutdown()
        thread.join()


def http(document: object, status: str = "200 OK", *fields: str) -> bytes:
    body = json.dumps(document).encode()
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "X-Request-ID: abc", *fields]
    return "\r\n".join([*head, "", ""]).encode() + body


def loaded(answer: Answer, rate: float | None = 200, seconds: float = 1.0) -> Tally:
    with server(answer) as port:
        with Load(Plan(port, [ITEM], connections=4, rate=rate)) as load:
            time.sleep(seconds)
        return load.tally


def test_right_answers_are_counted_by_version_at_the_rate_that_was_asked_for() -> None:
    tally = loaded(lambda _: http(RIGHT))
    assert tally.failures == []
    assert tally.right == tally.sent == tally.due >= 200
    assert {version for _, version in tally.versions} == {"1"}
    assert tally.versions.total() == tally.right
    assert sum(second.answers for second in tally.seconds.values()) == tally.right
    assert tally.right_by_path == {"/predict": tally.right}
    assert set(tally.last_seen) == {"abc"}


def test_without_a_rate_every_connection_is_busy_all_the_time() -> None:
    tally = loaded(lambda _: http(RIGHT), rate=None)
    assert tally.right == tally.sent == tally.due > 0
    assert tally.failures == []


@pytest.mark.parametrize(
    ("answer", "what", "detail"),
    [
        (None, "reset", "closed without an answer"),
        (http({}, "500 Internal Server Error"), "status", "500"),
        (http(RIGHT | {"model_version": "2"}), "wrong answer", "200"),
        (http(RIGHT | {"model_version": "3"}), "wrong answer", "200"),
        (http(RIGHT | {"probabilities": {"class_0": 0.25}}), "wrong answer", "200"),
        (http([]), "wrong answer", "200"),
    ],
)
def test_each_failure_is_noted_with_what_it_was(
    answer: bytes | None, what: str, detail: str
) -> None:
    tally = loaded(lambda number: answer if number % 10 == 5 else http(RIGHT), seconds=0.5)
    assert {one.what for one in tally.failures} == {what}
    assert all(detail in one.detail for one in tally.failures)
    assert len(tally.failures) == sum(number % 10 == 5 for number in range(tally.sent))
    assert tally.right + tally.failed == tally.sent


def test_a_connection_that_the_server_announces_to_close_is_replaced_and_nothing_fails() -> None:
    tally = loaded(lambda number: http(RIGHT, "200 OK", "Connection: close"), seconds=0.5)
    assert tally.failures == []
    assert tally.reconnections == tally.right == tally.sent


def test_a_server_that_stalls_is_sent_afterwards_what_was_due_meanwhile() -> None:
    def answer(number: int) -> bytes:
        if number < 4:
            time.sleep(0.5)
        return http(RIGHT)

    tally = loaded(answer)
    assert tally.right == tally.sent == tally.due >= 200
    assert max(second.slowest_ms for second in tally.seconds.values()) >= 450


def test_what_can_not_be_connected_is_a_failure() -> None:
    with server(lambda _: None) as port:
        load = Load(Plan(port, [ITEM], connections=2, rate=50))
        load.__enter__()
    time.sleep(0.3)
    load.__exit__(None, None, None)
    assert {one.what for one in load.tally.failures} <= {"refused", "reset"}
    assert "refused" in {one.what for one in load.tally.failures}
