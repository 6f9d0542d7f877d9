"""What a caller can make a network do is bounded: the worker survives it, and answers others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests.integration.conftest import Server, wait_for
from tests.unbounded import EXAMPLE, pack_unbounded

URL = "/v2/models/any/infer"
MEMORY_MB = 400
DATATYPES = {"i": "INT64", "f": "FP32", "U": "BYTES"}


@pytest.fixture(scope="module", params=["keepalive", "gthread"])
def worker_class(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scratch = tmp_path_factory.mktemp("unbounded")
    pack_unbounded(scratch, scratch / "any" / "1")
    return scratch / "any"


@pytest.fixture(scope="module")
def started() -> list[Server]:
    """The server that is there, if there is one."""
    return []


@pytest.fixture
def server(
    start: Callable[..., Server], directory: Path, worker_class: str, started: list[Server]
) -> Server:
    """A gthread of its own for each test: the heaps of its threads keep the addresses of what a run
    took, and they count for the limit.
    """
    if worker_class == "gthread":
        while started:
            started.pop().stop()
    if not started:
        started.append(start_limited(start, directory))
    return started[0]


def start_limited(start: Callable[..., Server], directory: Path) -> Server:
    return start(
        *("-w", "1"),
        MODEL__PATH=str(directory),
        LIMITS__RUN_SECONDS="120",  # whatever it takes on a busy machine
        SERVER__TIMEOUT_SECONDS="240",
        LIMITS__RUN_MEMORY_MB=str(MEMORY_MB),
    )


def ask(server: Server, **changed: Any) -> requests.Response:
    """Ask for the total, with some inputs changed."""
    inputs = []
    for name, value in (EXAMPLE | changed).items():
        array = np.asarray(value)
        kind = DATATYPES[array.dtype.kind]
        data = array.reshape(-1).tolist()
        inputs.append({"name": name, "datatype": kind, "shape": list(array.shape), "data": data})
    return requests.post(
        server.url + URL, json={"inputs": inputs, "outputs": [{"name": "total"}]}, timeout=300
    )


def assert_serves(server: Server, workers: list[int]) -> None:
    response = ask(server)
    assert response.status_code == 200, response.text
    assert server.workers() == workers, server.log.read_text()[-5000:]


def peak_mb(pid: int) -> int:
    """Return the most memory that a process had, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def test_a_run_without_end_is_stopped_and_the_worker_serves_on(
    start: Callable[..., Server], directory: Path
) -> None:
    server = start("-w", "1", MODEL__PATH=str(directory), LIMITS__RUN_SECONDS="1")
    workers = server.workers()
    for _ in range(2):
        response = ask(server, rounds=1 << 60)
        problem = response.json()
        assert (response.status_code, problem["type"]) == (413, "urn:lantern:problem:run-too-long")
        assert "still running after 1 seconds" in problem["error"]
        assert "limits.run_seconds" in problem["error"]
        assert_serves(server, workers)


@pytest.mark.parametrize(
    "inputs",
    [
        {"kept rounds": 1 << 60},
        {"doublings": 60},
        {"end": 1 << 40},
        {"shape": [1 << 20, 1 << 12]},
        {"sizes": [1, 1, 1 << 16, 1 << 16]},
        {"depth": 1 << 31},
        {"padding": [0, 1 << 31]},
        {"zeros": [1 << 16, 1 << 16]},
        {"times": [1 << 20], "text": ["x" * 10_000]},
        {"x": np.ones((40_000, 1), dtype=np.float32)},
    ],
    ids=lambda inputs: next(iter(inputs)),
)
def test_a_run_that_takes_all_memory_is_refused_and_the_worker_serves_on(
    server: Server, inputs: dict[str, Any]
) -> None:
    workers = server.workers()
    response = ask(server, **inputs)
    assert response.status_code == 413, response.text + server.log.read_text()[-5000:]
    problem = response.json()
    assert problem["type"] == "urn:lantern:problem:run-too-large"
    assert f"exceeds the limit of {MEMORY_MB} MiB (limits.run_memory_mb)" in problem["error"]
    assert_serves(server, workers)
    # Its own 100 MiB, the limit, and much that other tests of this server don't need.
    assert peak_mb(workers[0]) < MEMORY_MB + 400


@pytest.mark.parametrize(
    "inputs", [{"shape": [1 << 62, 4]}, {"shape": [-5]}, {"depth": -1}, {"sizes": [0, 0, 0, 0]}]
)
def test_sizes_that_can_not_be_are_refused(server: Server, inputs: dict[str, Any]) -> None:
    workers = server.workers()
    assert 400 <= ask(server, **inputs).status_code < 500
    assert_serves(server, workers)


def test_gthread_has_its_threads_before_a_run_has_the_memory(
    start: Callable[..., Server], directory: Path
) -> None:
    """It starts them for requests, and exits if it can't."""
    threads = 40
    server = start(
        *("-w", "1"),
        MODEL__PATH=str(directory),
        SERVER__WORKER_CLASS="gthread",
        SERVER__THREADS=str(threads),
    )
    (worker,) = server.workers()
    assert len(list(Path(f"/proc/{worker}/task").iterdir())) > threads


def test_a_model_is_loaded_beside_the_limit_of_runs(server: Server, directory: Path) -> None:
    pid = server.workers()[0]
    limit = Path(f"/proc/{pid}/limits")
    before = limit.read_text()
    os.utime(directory / "1" / "manifest.json")
    wait_for(lambda: len(server.lines("model loaded")) >= 2)
    wait_for(lambda: "unlimited" not in limit.read_text().split("Max data size")[1].split()[0])
    assert "unlimited" not in before.split("Max data size")[1].split()[0]
    assert_serves(server, [pid])


def test_one_operation_without_end_costs_the_worker_and_not_the_service(
    start: Callable[..., Server], directory: Path
) -> None:
    """An operation can't be stopped. Gunicorn's master doesn't see that a thread hangs."""
    server = start(
        *("-w", "1"),
        MODEL__PATH=str(directory),
        LIMITS__RUN_SECONDS="1",
        SERVER__TIMEOUT_SECONDS="3",
    )
    (worker,) = server.workers()
    try:
        with pytest.raises(requests.ConnectionError):
            ask(server, boxes=np.array(1e6, dtype=np.float32))
    finally:
        wait_for(lambda: worker not in server.workers())
    wait_for(server.workers)
    wait_for(lambda: len(server.lines("model loaded")) >= 2)
    assert ask(server).status_code == 200
