"""A worker may open few files, and hundreds of connections want one each.

It takes as many connections as leave it some files, closes those that are idle for one that comes,
and answers everybody: predictions, metrics, and with a version that is released meanwhile. Nobody
is told 500. Gunicorn's gthread takes no more either (it would end when it can't accept), but gives
each idle connection a thread for five seconds: others wait until those are through or gone.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from pathlib import Path

from app.registry.release import Release, write_release
from tests.faults.conftest import Callers, Start, predict, scrape
from tests.integration.conftest import Server, wait_for

FILES = 120
SAMPLE = {"age": 30, "income": 20_000, "visits": 1}


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def hold_connections(server: Server, number: int, stack: contextlib.ExitStack) -> None:
    """Open connections, and send nothing on them."""
    for _ in range(number):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=120)
        stack.enter_context(connection)


def test_connections_leave_files_for_everything_else(start: Start, versions: Path) -> None:
    write_release(versions, Release("1"))
    server = start(
        2,
        options={"preexec_fn": few_files},
        MODEL__PATH=str(versions),
        RELEASE__POLL_SECONDS="0.1",
    )
    workers = server.workers()
    wait_for(lambda: len(server.lines("model loaded")) == 2)
    with contextlib.ExitStack() as stack:
        hold_connections(server, 300, stack)
        with Callers(server, SAMPLE) as callers:
            callers.wait_for_more(100)
            write_release(versions, Release("2"))
            wait_for(lambda: len(server.lines("release followed")) == 2)
            callers.wait_for_more(100)
            assert scrape(server)
    assert (set(callers.answered), callers.failed, callers.silent) == ({200}, 0, 0)
    assert server.workers() == workers
    assert predict(server, SAMPLE).json()["model_version"] == "2"
    assert not [line for line in server.lines() if line["level"] in ("ERROR", "CRITICAL")]


def test_gthread_outlives_them(start: Start, sample: dict[str, float]) -> None:
    server = start(2, options={"preexec_fn": few_files}, SERVER__WORKER_CLASS="gthread")
    workers = server.workers()
    with contextlib.ExitStack() as stack:
        hold_connections(server, 300, stack)
        wait_for(lambda: all(open_files(worker) > FILES / 2 for worker in workers))
        time.sleep(1)  # in which it would take more
        assert max(open_files(worker) for worker in workers) < FILES - 20
    assert predict(server, sample).status_code == 200
    assert server.workers() == workers
