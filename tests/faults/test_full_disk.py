"""The file system of the temporary files is full to its last byte, or takes no further file.

Nothing of a running service is there, so nothing happens: predictions are answered and counted as
before, workers and masters start, and no process dies.
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
PREDICTED = (REQUESTS, (("method", "POST"), ("route", "/predict"), ("status", "200")))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "size=4m,nr_inodes=100") as disk:
        yield disk


def environ(disk: Path) -> dict[str, str]:
    """Make temporary files there."""
    return {"TMPDIR": str(disk)}


def kill_and_wait(server: Server) -> None:
    """Kill a worker, and wait until another one has loaded the model."""
    loads = len(server.lines("model loaded"))
    os.kill(server.workers()[0], signal.SIGKILL)
    wait_for(lambda: len(server.lines("model loaded")) > loads)


@pytest.mark.parametrize("worker_class", ["keepalive", "gthread"])
def test_a_disk_that_fills_up_costs_nothing(
    disk: Path, start: Start, sample: dict[str, float], worker_class: str
) -> None:
    server = start(2, environ=environ(disk), SERVER__WORKER_CLASS=worker_class)
    workers = server.workers()
    fill(disk)
    with Callers(server, sample) as callers:
        callers.wait_for_more(300)
        counted = total(scrape(server), REQUESTS)
        assert counted >= 300
        assert server.workers() == workers, "a worker died"
        for _ in range(2):
            kill_and_wait(server)
        callers.wait_for_more(300)
        assert server.process.poll() is None, "the master died"
        assert total(scrape(server), REQUESTS) >= counted + 300
    assert (set(callers.answered), callers.silent) == ({200}, 0)
    assert "SIGBUS" not in server.log.read_text()


def test_a_server_that_starts_on_a_full_disk_serves_and_counts(
    disk: Path, start: Start, sample: dict[str, float]
) -> None:
    fill(disk)
    server = start(2, environ=environ(disk))
    workers = server.workers()
    for _ in range(20):
        assert predict(server, sample).status_code == 200
    assert scrape(server)[PREDICTED] == 20
    kill_and_wait(server)
    assert predict(server, sample).status_code == 200
    assert len(set(server.workers()) - set(workers)) == 1
    assert scrape(server)[PREDICTED] == 21


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
