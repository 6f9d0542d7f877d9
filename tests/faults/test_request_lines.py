"""The lines of requests and predictions of a real server: few writes, in order, none lost."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Callers, Start
from tests.integration.conftest import Server, wait_for
from tests.worker.wire import Connection, request

REQUESTS = 56


def writes(pid: int) -> int:
    """Return how many calls like write(2) a process has made."""
    fields = Path(f"/proc/{pid}/io").read_text().split()
    return int(fields[fields.index("syscw:") + 1])


def predictions(server: Server) -> list[dict[str, Any]]:
    """Return the lines of answered predictions and their requests, in order."""
    return [
        line
        for line in server.lines()
        if line["message"] == "prediction"
        or (line["message"] == "request" and (line["path"], line["status"]) == ("/predict", 200))
    ]


@pytest.fixture
def server(start: Start) -> Iterator[Server]:
    return start(1)


def test_requests_under_load_share_writes_and_each_has_its_lines_in_order(
    server: Server, sample: dict[str, float]
) -> None:
    (worker,) = server.workers()
    body = json.dumps({"features": sample}).encode()
    with ExitStack() as stack:
        connections = [
            stack.enter_context(Connection(("127.0.0.1", server.port))) for _ in range(REQUESTS)
        ]
        for connection in connections:
            assert connection.send(request("/health/live")).answer() is not None
        wait_for(lambda: len(server.lines("request")) > REQUESTS)
        before = writes(worker)
        os.kill(worker, signal.SIGSTOP)
        for number, connection in enumerate(connections):
            fields = "Content-Type: application/json", f"X-Request-ID: r-{number}"
            connection.send(request("/predict", *fields, method="POST", body=body))
        os.kill(worker, signal.SIGCONT)
        for connection in connections:
            answer = connection.answer()
            assert answer is not None
            assert answer.status == 200
    wait_for(lambda: len(predictions(server)) == 2 * REQUESTS)
    assert writes(worker) - before <= REQUESTS // 2
    lines = predictions(server)
    for prediction, served in zip(lines[::2], lines[1::2], strict=True):
        assert (prediction["message"], served["message"]) == ("prediction", "request")
        assert prediction["request_id"] == served["request_id"]
        assert prediction["pid"] == served["pid"] == worker
    assert {line["request_id"] for line in lines} == {f"r-{n}" for n in range(REQUESTS)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP])
def test_a_server_that_is_told_to_stop_or_reload_loses_no_line(
    number: signal.Signals,
    start: Start,
    sample: dict[str, float],
) -> None:
    server = start(2)
    with Callers(server, sample) as callers:
        callers.wait_for_more(200)
        server.process.send_signal(number)
        if number == signal.SIGHUP:
            callers.wait_for_more(200)
        else:
            server.process.wait(120)
    server.stop()
    assert callers.answered[200] >= 200
    assert_all_are_logged(server, callers)


def test_a_worker_that_is_aborted_loses_no_line(start: Start, sample: dict[str, float]) -> None:
    """As the master does to one that hangs."""
    server = start(1)
    with Callers(server, sample) as callers:
        for _ in range(3):
            callers.wait_for_more(100)
            os.kill(server.workers()[0], signal.SIGABRT)
            wait_for(server.workers)
        callers.wait_for_more(100)
    server.stop()
    assert_all_are_logged(server, callers)


def test_workers_that_end_after_their_requests_lose_no_line(
    start: Start,
    sample: dict[str, float],
) -> None:
    server = start(2, "--max-requests", "50")
    with Callers(server, sample) as callers:
        callers.wait_for_more(400)
    server.stop()
    assert len({line["pid"] for line in server.lines("prediction")}) > 2
    assert_all_are_logged(server, callers)


def assert_all_are_logged(server: Server, callers: Callers) -> None:
    logged = Counter(line["message"] for line in predictions(server))
    assert logged["request"] >= callers.answered[200]
    assert logged["prediction"] >= callers.answered[200]
