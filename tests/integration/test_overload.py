"""An overloaded service refuses at once, and serves in time what it takes; one that is told
to stop says so to whoever leads requests to it. Real Gunicorns with the keep-alive worker.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import pytest
import requests

from app.access.header_names import REQUEST_TIMEOUT
from tests.integration.conftest import Server, wait_for

JSON = {"Content-Type": "application/json"}
ROWS = 5000
"""Of a batch, which takes longer than the shortest budget here, however fast the machine."""


@pytest.fixture(scope="module", params=["keepalive"])
def worker_class(request: pytest.FixtureRequest) -> str:
    """Only this one knows how long a request has waited, and goes on while it drains."""
    return str(request.param)


class Callers:
    """Callers that send batches without a pause, each on a kept connection."""

    def __init__(self, server: Server, sample: dict[str, float], number: int) -> None:
        self.server = server
        self.body = json.dumps({"samples": [sample] * ROWS})
        self.stopping = threading.Event()
        self.statuses: list[int] = []
        self.faults: list[str] = []
        self.threads = [threading.Thread(target=self._call) for _ in range(number)]

    def __enter__(self) -> Callers:
        for thread in self.threads:
            thread.start()
        wait_for(lambda: len(self.statuses) > len(self.threads) or self.faults)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        assert not self.faults, self.faults

    def _call(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=120)
        try:
            while not self.stopping.is_set():
                connection.request("POST", "/predict/batch", self.body, JSON)
                answer = connection.getresponse()
                body = answer.read()  # not parsed, which takes longer than serving it
                self.statuses.append(answer.status)
                if answer.status == 200:
                    assert b'"total_samples":%d' % ROWS in body
                else:
                    assert b"urn:lantern:problem:overloaded" in body
                    assert answer.headers["Retry-After"] == "1"
        except (OSError, http.client.HTTPException, AssertionError) as error:
            self.faults.append(repr(error))
        finally:
            connection.close()


def test_what_would_wait_for_too_long_is_refused_and_the_rest_is_served(
    start: Callable[..., Server], sample: dict[str, float]
) -> None:
    server = start("-w", "1", LIMITS__QUEUE_BUDGET_MS="2", LOGGING__LEVEL="WARNING")
    with Callers(server, sample, 12) as callers:
        wait_for(lambda: callers.statuses.count(200) > 5 and callers.statuses.count(503) > 5)
        for path in ("/health/live", "/health/ready", "/model/info", "/metrics"):
            assert requests.get(server.url + path, timeout=120).status_code == 200, path
        refused = 'lantern_http_requests_rejected_total{reason="overloaded"}'
        assert _value(server, refused) > 5
    assert set(callers.statuses) == {200, 503}


def test_a_caller_in_a_hurry_is_told_at_once(
    start: Callable[..., Server], sample: dict[str, float]
) -> None:
    server = start("-w", "1", LIMITS__QUEUE_BUDGET_MS="0", LOGGING__LEVEL="WARNING")
    (worker,) = server.workers()
    batch = json.dumps({"samples": [sample] * ROWS})
    row = json.dumps({"features": sample})
    with ExitStack() as stack:
        *callers, patient, hurried = (_connect(server, stack) for _ in range(6))
        for _ in range(3):  # so that the worker knows how long such a batch takes
            assert _post(callers[0], "/predict/batch", batch).status == 200
        os.kill(worker, signal.SIGSTOP)  # until all stand in line
        for caller in callers:
            caller.request("POST", "/predict/batch", batch, JSON)
        patient.request("POST", "/predict", row, JSON | {REQUEST_TIMEOUT: "600000"})
        hurried.request("POST", "/predict", row, JSON | {REQUEST_TIMEOUT: "1"})
        os.kill(worker, signal.SIGCONT)
        refused = hurried.getresponse()
        assert refused.status == 503
        assert "limit of 0.001 s" in json.load(refused)["detail"]
        for other in (patient, *callers):
            assert other.getresponse().status == 200, "nobody else is refused"
    with Callers(server, sample, 4):
        wait_for(lambda: _value(server, "lantern_http_requests_in_flight") > 0)


def _connect(server: Server, stack: ExitStack) -> http.client.HTTPConnection:
    """Open a connection that the worker has accepted."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("GET", "/health/live")
    connection.getresponse().read()
    return stack.enter_context(closing(connection))


def _post(connection: http.client.HTTPConnection, path: str, body: str) -> http.client.HTTPResponse:
    connection.request("POST", path, body, JSON)
    response = connection.getresponse()
    response.read()
    return response


def test_a_service_that_drains_says_that_it_is_not_ready_and_serves_on(
    start: Callable[..., Server], sample: dict[str, float]
) -> None:
    server = start("-w", "2", SERVER__DRAIN_SECONDS="29")
    server.process.send_signal(signal.SIGTERM)

    def said() -> dict[str, Any] | None:
        answer = requests.get(f"{server.url}/health/ready", timeout=120)
        return answer.json() if answer.status_code == 503 else None

    assert wait_for(said)["type"] == "urn:lantern:problem:draining"
    assert requests.get(f"{server.url}/health/live", timeout=120).status_code == 200
    until = time.monotonic() + 1
    while time.monotonic() < until:
        answer = requests.post(f"{server.url}/predict", json={"features": sample}, timeout=120)
        assert answer.status_code == 200
    for worker in server.workers():  # which need not drain to its end
        os.kill(worker, signal.SIGQUIT)
    assert server.process.wait(120) == 0


def _value(server: Server, name: str) -> float:
    metrics = requests.get(f"{server.url}/metrics", timeout=120).text
    (line,) = [line for line in metrics.splitlines() if line.startswith(name + " ")]
    return float(line.rpartition(" ")[2])
