"""A worker hangs: it is stopped, or its network does not come to an end.

The other workers serve, and what waits for any worker goes to them. After ``timeout_seconds`` the
master replaces the one that hangs; whoever it had accepted is then reset, not left waiting. (Under
gthread a network without end costs a thread and no worker: its main thread shows signs of life. And
a worker that hangs while it loads is not replaced: loading may take as long as it takes.)
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
import requests

from app.registry.release import Release, write_release
from tests.descriptors import open_files
from tests.endless import make_endless
from tests.faults.conftest import Callers, Start, connect, predict
from tests.integration.conftest import wait_for

CALLERS = 8


def shows_life(worker: int) -> bool:
    """Return whether a worker has loaded its model and begun to be watched by the master.

    A file's time tells the master, by the clock that begins when the machine does.
    """
    files = [link for link, target in open_files(worker).items() if "lantern-heartbeat" in target]
    # One that was just forked has the files of others, too.
    return len(files) == 1 and files[0].stat().st_mtime <= time.monotonic()


@pytest.mark.parametrize("worker_class", ["keepalive", "gthread"])
def test_a_worker_that_hangs_is_replaced_while_others_serve(
    start: Start, sample: dict[str, float], worker_class: str
) -> None:
    server = start(2, "-t", "2", SERVER__WORKER_CLASS=worker_class)
    with Callers(server, sample, CALLERS) as callers:
        callers.wait_for_more(100)
        hanging, other = server.workers()
        os.kill(hanging, signal.SIGSTOP)
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(contextlib.closing(connect(server))) for _ in range(20)]
            for connection in waiting:  # to whichever takes them, and to nobody that hangs
                connection.request("GET", "/health/live")
            assert {connection.getresponse().status for connection in waiting} == {200}
        callers.wait_for_more(100)
        wait_for(lambda: hanging not in (now := server.workers()) and len(now) == 2)
        callers.wait_for_more(100)
    assert other in server.workers()
    assert (set(callers.answered), callers.silent) == ({200}, 0)
    assert callers.failed <= CALLERS
    assert [line for line in server.lines() if line["message"] == f"WORKER TIMEOUT (pid:{hanging})"]


def test_when_all_hang_whoever_waits_is_answered_by_those_that_follow(
    start: Start, sample: dict[str, float]
) -> None:
    server = start(2, "-t", "2")
    hanging = server.workers()
    wait_for(lambda: all(shows_life(worker) for worker in hanging))
    for worker in hanging:
        os.kill(worker, signal.SIGSTOP)
    assert predict(server, sample).status_code == 200  # it waited, in the queue of the listener
    wait_for(lambda: not set(hanging) & set(server.workers()))


def test_a_network_without_end_costs_its_worker_and_the_one_who_asked(
    start: Start, versions: Path
) -> None:
    make_endless(versions / "1", above=1e12)
    write_release(versions, Release("1"))
    server = start(2, "-t", "2", MODEL__PATH=str(versions))
    row = {"age": 30, "income": 20_000, "visits": 1}
    wait_for(lambda: all(shows_life(worker) for worker in server.workers()))
    before = server.workers()
    with Callers(server, row, 4) as callers:
        callers.wait_for_more(100)
        with pytest.raises(requests.ConnectionError):
            predict(server, row | {"income": 1e13})
        wait_for(lambda: len(server.lines("model loaded")) == 3)
        callers.wait_for_more(100)
    assert (set(callers.answered), callers.silent) == ({200}, 0)
    assert callers.failed <= 4
    assert len(set(before) & set(server.workers())) == 1
