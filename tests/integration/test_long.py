"""A model whose network takes long, on the keep-alive worker: it holds up nobody else.

Its network goes round for ever where the age is above a limit, until `limits.run_seconds` ends that
run: so calls last, and no test depends on how long.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import BUNDLE
from tests.endless import make_endless
from tests.integration.conftest import Server, wait_for
from tests.slow_network import make_slow
from tests.worker.wire import Answer, Connection, request

ENDLESS = 1e15


@pytest.fixture(scope="module")
def slow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of one version whose network takes long, and for some rows for ever."""
    version = tmp_path_factory.mktemp("models") / "slow" / BUNDLE.name
    shutil.copytree(BUNDLE, version)
    make_slow(version)
    make_endless(version, above=ENDLESS / 2)
    return version.parent


class Start:
    """Starts servers of the slow model, and stops them after the tests of this module."""

    def __init__(self, models: Path, factory: pytest.TempPathFactory) -> None:
        self._models, self._factory = models, factory
        self.servers: list[Server] = []

    def __call__(self, *arguments: str, **settings: str) -> Server:
        log = self._factory.mktemp("server") / "log"
        settings.setdefault("MODEL__PATH", str(self._models))
        server = Server(["-w", "1", *arguments], settings, log)
        self.servers.append(server)
        server.wait_until_up()
        wait_for(lambda: server.lines("model loaded"))
        return server


@pytest.fixture(scope="module")
def start(slow_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    begin = Start(slow_models, tmp_path_factory)
    yield begin
    for server in begin.servers:
        server.stop()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def send(
    server: Server, stack: ExitStack, sample: dict[str, Any], *fields: str, endless: bool = False
) -> Connection:
    """Ask for a prediction on a connection of its own, and don't wait for it."""
    if endless:
        sample = sample | {next(iter(sample)): ENDLESS}
    body = json.dumps({"features": sample}).encode()
    connection = stack.enter_context(Connection(("127.0.0.1", server.port)))
    fields = ("Content-Type: application/json", *fields)
    return connection.send(request("/predict", *fields, method="POST", body=body))


def answered(connection: Connection) -> Answer:
    answer = connection.answer()
    assert answer is not None
    return answer


def metrics(server: Server, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of one metric by the values of their labels."""
    text = requests.get(f"{server.url}/metrics", timeout=120).text
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def wait_until_in_flight(server: Server, calls: int) -> None:
    wait_for(lambda: metrics(server, "lantern_http_requests_in_flight")[()] > calls - 0.5)


def test_others_are_answered_while_it_predicts_in_all_threads(
    start: Start, stack: ExitStack, sample: dict[str, Any]
) -> None:
    server = start(
        SERVER__POOL_THREADS="2", LIMITS__RUN_SECONDS="15", LIMITS__QUEUE_BUDGET_MS="60000"
    )
    endless = [send(server, stack, sample, endless=True) for _ in range(2)]
    wait_until_in_flight(server, 2)
    patient = [send(server, stack, sample) for _ in range(3)]
    hurried = answered(send(server, stack, sample, "X-Request-Timeout-Ms: 50"))
    assert (hurried.status, hurried["Retry-After"]) == (503, "1")
    assert "Server overloaded" in hurried.json()["detail"]
    for path in ("/health", "/metrics", "/model/info"):
        assert requests.get(server.url + path, timeout=120).status_code == 200
    assert not [line for line in server.lines("request") if line["status"] == 413], (
        "the two were still running"
    )
    assert [answered(connection).status for connection in endless] == [413, 413]
    assert [answered(connection).status for connection in patient] == [200] * 3


def cpu_seconds(worker: int) -> dict[str, int]:
    """Return what each thread of a worker has taken of the processor, in ticks."""
    threads = Path(f"/proc/{worker}/task").iterdir()
    return {
        each.name: int((each / "stat").read_text().rpartition(")")[2].split()[11])
        for each in threads
    }


def test_networks_run_at_once_in_several_threads(
    start: Start, stack: ExitStack, sample: dict[str, Any]
) -> None:
    server = start(MODEL__BATCH_ROWS="0", LIMITS__RUN_SECONDS="25")
    (worker,) = server.workers()
    endless = [send(server, stack, sample, endless=True) for _ in range(2)]

    def are_running() -> bool:
        before = cpu_seconds(worker)
        time.sleep(0.5)
        after = cpu_seconds(worker)
        return sum(after[thread] > before.get(thread, 0) + 4 for thread in after) >= 2

    wait_for(are_running, 25)
    assert not [line for line in server.lines("request") if line["status"] == 413]
    for connection in endless:
        connection.close()


def test_requests_of_several_connections_share_passes(
    start: Start, stack: ExitStack, sample: dict[str, Any]
) -> None:
    server = start(MODEL__BATCH_ROWS="64")
    connections = [send(server, stack, sample) for _ in range(16)]
    body = json.dumps({"features": sample}).encode()
    again = request("/predict", "Content-Type: application/json", method="POST", body=body)

    def have_shared() -> bool:
        for connection in connections:
            assert answered(connection).status == 200
            connection.send(again)
        rows = sum(metrics(server, "lantern_batch_rows_sum").values())
        return sum(metrics(server, "lantern_batch_rows_count").values()) < rows

    wait_for(have_shared)


def test_what_threads_count_and_log_is_right(start: Start, sample: dict[str, Any]) -> None:
    server = start(LIMITS__RUN_SECONDS="10")
    body = json.dumps({"features": sample}).encode()
    statuses: Counter[int] = Counter()
    ids: Counter[str] = Counter()

    def work() -> None:
        with requests.Session() as session:
            for number in range(20):
                if number % 4 == 3:
                    answer = session.get(f"{server.url}/health", timeout=120)
                else:
                    answer = session.post(
                        f"{server.url}/predict",
                        data=body,
                        headers={"Content-Type": "application/json"},
                        timeout=120,
                    )
                statuses[answer.status_code] += 1
                ids[answer.headers["X-Request-ID"]] += 1

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {200: 200}
    assert set(ids.values()) == {1}
    assert metrics(server, "lantern_http_requests_total")["POST", "/predict", "200"] == 150
    assert sum(metrics(server, "lantern_predicted_rows_total").values()) == 150
    wait_for(lambda: len(server.lines("prediction")) == 150)
    logged = Counter(line["request_id"] for line in server.lines("request"))
    assert all(logged[request_id] == 1 for request_id in ids)
    lines = server.log.read_text().splitlines()
    assert all(
        line.startswith("{") and line.endswith("}") for line in lines if "request_id" in line
    )


def test_a_worker_is_told_to_stop_while_it_predicts(
    start: Start, stack: ExitStack, sample: dict[str, Any]
) -> None:
    server = start(SERVER__POOL_THREADS="1", LIMITS__RUN_SECONDS="15")
    connections = [send(server, stack, sample, endless=True)]
    wait_until_in_flight(server, 1)
    connections += [send(server, stack, sample) for _ in range(12)]
    wait_until_in_flight(server, 13)
    server.process.terminate()
    statuses = [answered(connection).status for connection in connections]
    assert statuses == [413] + [200] * 12
    assert server.process.wait(120) == 0
    assert "Traceback" not in server.log.read_text()
