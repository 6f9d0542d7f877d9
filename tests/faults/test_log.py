"""The log can't be written: its reader has stopped, or is gone, or its disk is full.

Every request is answered as before, no worker is replaced, and the master does its work. A process
holds 1 MiB of lines; more are dropped, counted in a metric, and told in one line when they flow
again. No line is torn.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from tests.integration.conftest import wait_for

DROPPED = "lantern_log_lines_dropped_total"
NOTICE = re.compile(r"(\d+) log lines were dropped")


class Pipe:
    """A pipe whose reader reads when it is told to."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe()
        self.text = b""
        self._thread = threading.Thread(target=self._read)

    def read(self) -> None:
        self._thread.start()

    def fill(self) -> None:
        """Fill it, by one line; without the flag O_NONBLOCK on what the server has."""
        own = os.open(f"/proc/self/fd/{self.into}", os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while os.write(own, b"x"):
                pass
        os.close(own)

    def lines(self) -> list[str]:
        """Return the whole lines that came so far."""
        return self.text.decode().split("\n")[:-1]

    def close(self) -> None:
        os.close(self.into)
        if self._thread.ident is None:
            self.read()
        self._thread.join()
        os.close(self.out)

    def _read(self) -> None:
        while part := os.read(self.out, 1 << 16):
            self.text += part


def told(lines: list[str]) -> int:
    """Return how many lines are said to be missing."""
    return sum(int(match[1]) for match in map(NOTICE.search, lines) if match)


@pytest.fixture  # to be asked for before `start`, whose servers hold its other end
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.mark.parametrize("worker_class", ["keepalive", "gthread"])
def test_a_reader_that_stops_costs_lines_and_nothing_else(
    pipe: Pipe, start: Start, sample: dict[str, float], worker_class: str
) -> None:
    server = start(
        *(2, "-t", "2"), options={"stdout": pipe.into}, SERVER__WORKER_CLASS=worker_class
    )
    workers = server.workers()
    with Callers(server, sample) as callers:
        wait_for(lambda: total(scrape(server), DROPPED) > 1000)
    assert (set(callers.answered), callers.failed, callers.silent) == ({200}, 0, 0)
    assert server.workers() == workers
    pipe.read()
    metrics: dict[Any, float] = {}

    def all_is_told() -> bool:
        metrics.clear()
        metrics.update(scrape(server))
        return told(pipe.lines()) == total(metrics, DROPPED)

    wait_for(all_is_told)
    server.stop()
    lines = [json.loads(line) for line in pipe.lines()]
    dropped = told(pipe.lines())
    answered = callers.answered[200]
    requests = total(metrics, "lantern_http_requests_total") + 1  # which wasn't counted yet
    logged = [line for line in lines if line["logger"] in ("lantern.request", "lantern.prediction")]
    assert len(logged) + dropped == requests + answered


def test_a_master_whose_log_is_not_read_still_replaces_a_worker(
    pipe: Pipe, start: Start, sample: dict[str, float]
) -> None:
    server = start(2, options={"stdout": pipe.into, "stderr": pipe.into})
    pipe.fill()
    before = set(server.workers())
    for worker in before:
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda worker=worker: worker not in (now := server.workers()) and len(now) == 2)
    assert predict(server, sample).status_code == 200
    pipe.read()
    server.stop()
    full, *lines = pipe.text.decode().partition("x" * 100)
    text = "".join(lines)
    for worker in before:
        assert f"Worker (pid:{worker}) was sent SIGKILL!" in text, full


def test_a_reader_that_is_gone_costs_nothing(start: Start, sample: dict[str, float]) -> None:
    reading, writing = os.pipe()
    server = start(2, options={"stdout": writing, "stderr": writing})
    os.close(writing)
    os.close(reading)
    workers = server.workers()
    with Callers(server, sample) as callers:
        callers.wait_for_more(500)
    assert (set(callers.answered), callers.failed) == ({200}, 0)
    assert server.workers() == workers
    server.stop()
    assert server.process.returncode == 0


@needs_root
def test_a_full_disk_costs_lines_that_are_told_once_there_is_room(
    start: Start, sample: dict[str, float], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "size=8m") as disk, (disk / "log").open("ab") as log:
        server = start(2, options={"stdout": log, "stderr": log})
        ballast = fill(disk)
        with Callers(server, sample) as callers:
            wait_for(lambda: total(scrape(server), DROPPED) > 10)
        assert (set(callers.answered), callers.failed) == ({200}, 0)
        ballast.unlink()
        wait_for(lambda: predict(server, sample).ok and "dropped" in (disk / "log").read_text())
        text = (disk / "log").read_text()
        assert "Traceback" not in text
        server.stop()
