"""Hundreds of clients disconnect: in the middle of a body, of an answer, or right after sending.

Others are served, no descriptor and no memory stays behind, and it is no error in the log.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import Callers, Start, predict
from tests.integration.conftest import wait_for
from tests.integration.test_hot_swap import resident
from tests.worker.wire import Connection, request

TIMES = 300


def head(length: int) -> bytes:
    return request(
        "/predict/batch",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        method="POST",
    )


def in_the_middle_of_a_body(connection: Connection, body: bytes) -> None:
    connection.send(head(len(body)), body[: len(body) // 2])


def right_after_sending(connection: Connection, body: bytes) -> None:
    connection.send(head(len(body)), body)


def in_the_middle_of_an_answer(connection: Connection, body: bytes) -> None:
    """Which is larger than all buffers on its way."""
    connection.send(head(len(body)), body)
    assert connection.socket.recv(100)


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.parametrize(
    "disconnect", [in_the_middle_of_a_body, right_after_sending, in_the_middle_of_an_answer]
)
@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
def test_clients_that_disconnect_cost_nobody_anything(
    start: Start,
    sample: dict[str, float],
    disconnect: Callable[[Connection, bytes], None],
    reset: bool,
) -> None:
    server = start(1)
    (worker,) = server.workers()
    predict(server, sample)  # by which it has opened all that it opens
    files = open_files(worker)
    body = json.dumps({"samples": [sample] * 1000}).encode()

    def leave(times: int) -> None:
        for number in range(times):
            connection = Connection(("127.0.0.1", server.port), receive_buffer=4096)
            disconnect(connection, body)
            if reset:
                connection.reset()
            else:
                connection.close()
            if number % 20 == 0:  # so that the memory taken does not depend on who is faster
                wait_for(lambda: open_files(worker) <= files + 5)

    with Callers(server, sample, 2) as callers:
        leave(TIMES)  # by then it has all the memory that it takes
        memory = resident(worker)
        leave(2 * TIMES)
        callers.wait_for_more(10)
        # How many stand in line together varies; bodies left behind would be twice as much.
        assert resident(worker) - memory <= 2 * TIMES * len(body) / 1024 / 2
    assert (set(callers.answered), callers.failed, callers.silent) == ({200}, 0, 0)
    wait_for(lambda: open_files(worker) <= files)
    assert server.workers() == [worker]
    assert not [line for line in server.lines() if line["level"] in ("ERROR", "CRITICAL")]
