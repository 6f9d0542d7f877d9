"""The file system of the temporary files is full to its last byte.

Predictions are answered as before, and so is ``/metrics``; no process dies of it (a write to a
mapped file of a full tmpfs is SIGBUS). What can't be counted is missing, which the log says once;
what was counted stays. With room again, counting goes on. A server that starts then uses the next
temporary directory that has room, and serves.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import (
    Callers,
    Start,
    fill,
    needs_root,
    predict,
    scrape,
    small_disk,
    total,
)
from tests.integration.conftest import Server, wait_for

pytestmark = needs_root
REQUESTS = "lantern_http_requests_total"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "size=4m,nr_inodes=100") as disk:
        yield disk


def environ(disk: Path) -> dict[str, str]:
    """Have temporary files there, and the metrics."""
    return {"TMPDIR": str(disk), "PROMETHEUS_MULTIPROC_DIR": str(disk / "metrics")}


def kill_and_wait(server: Server) -> None:
    """Kill a worker, and wait until another one has loaded the model."""
    loads = len(server.lines("model loaded"))
    os.kill(server.workers()[0], signal.SIGKILL)
    wait_for(lambda: len(server.lines("model loaded")) > loads)


@pytest.mark.parametrize("worker_class", ["keepalive", "gthread"])
def test_a_disk_that_fills_up_costs_metrics_and_nothing_else(
    disk: Path, start: Start, sample: dict[str, float], worker_class: str
) -> None:
    server = start(2, environ=environ(disk), SERVER__WORKER_CLASS=worker_class)
    workers = server.workers()
    ballast = fill(disk)
    with Callers(server, sample) as callers:
        callers.wait_for_more(300)
        counted = total(scrape(server), REQUESTS)
        assert server.workers() == workers, "a worker died"
        for _ in range(2):
            kill_and_wait(server)
        callers.wait_for_more(300)
        assert server.process.poll() is None, "the master died"
        assert total(scrape(server), REQUESTS) >= counted
        ballast.unlink()
        before = total(scrape(server), REQUESTS)
        wait_for(lambda: total(scrape(server), REQUESTS) > before + 100)
    assert (set(callers.answered), callers.silent) == ({200}, 0)
    assert "SIGBUS" not in server.log.read_text()
    told = [line["pid"] for line in server.lines("metrics can't be recorded; told once")]
    assert len(told) == len(set(told)), "told more than once"


def test_a_server_that_starts_on_a_full_disk_serves_without_metrics(
    disk: Path, start: Start, sample: dict[str, float]
) -> None:
    fill(disk)
    server = start(2, environ=environ(disk))
    workers = server.workers()
    for _ in range(20):
        assert predict(server, sample).status_code == 200
    assert total(scrape(server), REQUESTS) == 0
    kill_and_wait(server)
    assert predict(server, sample).status_code == 200
    assert len(set(server.workers()) - set(workers)) == 1
    (disk / "ballast").unlink()
    predict(server, sample)
    assert total(scrape(server), REQUESTS) > 0


def test_a_disk_that_takes_no_further_file_ends_no_master(
    disk: Path, start: Start, sample: dict[str, float]
) -> None:
    server = start(2, environ=environ(disk))
    with contextlib.suppress(OSError):
        for number in range(100):
            (disk / str(number)).touch()
    kill_and_wait(server)
    kill_and_wait(server)
    assert predict(server, sample).status_code == 200
    scrape(server)
