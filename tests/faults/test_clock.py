"""The clock of the machine is set back, and forth, by a day, under load.

No worker is replaced, no connection is ended, no request fails; deadlines last as long as they say;
the release is followed; the log goes on, with the time that the clock tells.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app.registry.release import Release, write_release
from tests.faults.conftest import Callers, Start, predict
from tests.integration.conftest import wait_for
from tests.worker.wire import Connection, request

SAMPLE = {"age": 30, "income": 20_000, "visits": 1}
BODY_SECONDS = 2
HOUR = timedelta(hours=1)
HEAD = ("Content-Type: application/json", "Content-Length: 9")


class Clock:
    """The time of day, for servers that are started with ``environ``; see ``clock.c``."""

    def __init__(self, directory: Path) -> None:
        library, self._file = directory / "clock.so", directory / "offset"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
        self._file.write_bytes(bytes(8))
        self.environ = {"LD_PRELOAD": str(library), "SET_CLOCK": str(self._file)}

    def set(self, offset: timedelta) -> None:
        """Set it to the true time and ``offset``."""
        seconds = int(offset.total_seconds())
        with self._file.open("r+b", buffering=0) as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler to make a clock with")
@pytest.mark.parametrize("worker_class", ["keepalive", "gthread"])
def test_a_clock_that_is_set_changes_nothing_but_timestamps(
    start: Start,
    versions: Path,
    tmp_path: Path,
    worker_class: str,
) -> None:
    write_release(versions, Release("1"))
    clock = Clock(tmp_path)
    server = start(
        *(2, "-t", "3"),
        environ=clock.environ,
        MODEL__PATH=str(versions),
        RELEASE__POLL_SECONDS="0.1",
        CACHE__SIZE="10",
        SERVER__BODY_TIMEOUT_SECONDS=str(BODY_SECONDS),
        SERVER__WORKER_CLASS=worker_class,
    )
    workers = server.workers()

    def told_of_a_day(days: int) -> bool:
        answer = predict(server, SAMPLE).json()
        now = datetime.now().astimezone()
        return abs(datetime.fromisoformat(answer["timestamp"]) - now - timedelta(days)) < HOUR

    with Callers(server, SAMPLE) as callers:
        for days in (-1, 1, 0):
            # A body that began before the clock was set has its time, and no less.
            with Connection(("127.0.0.1", server.port)) as connection:
                connection.send(request("/predict", *HEAD, method="POST"))
                begun = time.monotonic()
                callers.wait_for_more(50)
                clock.set(timedelta(days))
                wait_for(lambda days=days: told_of_a_day(days))
                callers.wait_for_more(50)
                version = str(days % 3 + 1)
                write_release(versions, Release(version))
                wait_for(lambda v=version: predict(server, SAMPLE).json()["model_version"] == v)
                answer = connection.answer()
                assert answer is not None
                assert answer.status == 408
                assert time.monotonic() - begun > BODY_SECONDS - 1
    assert (set(callers.answered), callers.failed, callers.silent) == ({200}, 0, 0)
    assert server.workers() == workers
    told = {datetime.fromisoformat(line["time"]).date() for line in server.lines("request")}
    today = datetime.now().astimezone().date()
    assert told >= {today - timedelta(1), today + timedelta(1)}
