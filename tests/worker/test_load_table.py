"""Workers share what comes: whoever has more leaves new connections to the others."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import ExitStack
from time import monotonic

import pytest

from app.worker import load_table
from app.worker.load_table import LoadTable
from tests.worker.conftest import Serve, limits
from tests.worker.wire import Connection, request


@pytest.fixture
def table() -> LoadTable:
    return LoadTable()


def test_a_worker_has_more_than_another_that_told_fewer(table: LoadTable) -> None:
    table.publish(1, 0.0, 3)
    table.publish(2, 0.0, 5)
    assert not table.should_yield(1, 0.0, 3)
    assert table.should_yield(2, 0.0, 5)
    assert not table.should_yield(2, 0.0, 3), "as many is not more"
    assert table.should_yield(3, 0.0, 4), "one that has not told its own"


def test_of_many_connections_some_more_do_not_matter(table: LoadTable) -> None:
    table.publish(1, 0.0, 100)
    assert not table.should_yield(2, 0.0, 125)
    assert table.should_yield(2, 0.0, 126)


def test_a_longer_line_is_more_than_any_number_of_connections(table: LoadTable) -> None:
    table.publish(1, 0.5, 3)
    table.publish(2, 0.005, 100)
    assert table.should_yield(1, 0.5, 3)
    assert not table.should_yield(2, 0.005, 100)
    table.publish(1, 0.009, 3)
    assert table.should_yield(2, 0.005, 100), "lines of some milliseconds are alike"


def test_a_worker_is_behind_one_whose_line_is_less_than_half_as_long(table: LoadTable) -> None:
    assert not table.is_behind(1, 10.0), "it is alone"
    table.publish(2, 0.2, 0)
    assert table.is_behind(1, 0.5)
    assert not table.is_behind(1, 0.3)
    assert not table.is_behind(2, 0.2)


def test_a_worker_knows_whether_there_are_others(table: LoadTable) -> None:
    table.publish(1, 0.0, 0)
    assert not table.has_peers(1)
    assert table.has_peers(2)
    table.withdraw(1)
    assert not table.has_peers(2)


def test_a_worker_that_is_alone_never_has_more(table: LoadTable) -> None:
    assert not table.should_yield(1, 0.0, 1000)
    table.publish(1, 0.0, 0)
    assert not table.should_yield(1, 0.0, 1000), "its own number doesn't count"


def test_a_worker_that_left_counts_no_more(table: LoadTable) -> None:
    table.publish(1, 0.0, 0)
    assert table.should_yield(2, 0.0, 1)
    table.withdraw(1)
    assert not table.should_yield(2, 0.0, 1)
    table.publish(1, 0.0, 0)
    assert table.should_yield(2, 0.0, 1)


def test_a_number_that_was_told_long_ago_counts_no_more(
    table: LoadTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.publish(1, 0.0, 0)
    assert table.should_yield(2, 0.0, 1)
    monkeypatch.setattr(load_table, "monotonic", lambda: monotonic() + 10)
    assert not table.should_yield(2, 0.0, 1)
    table.publish(1, 0.0, 0)
    assert table.should_yield(2, 0.0, 1)


def test_workers_whose_numbers_are_far_apart_may_share_a_slot(table: LoadTable) -> None:
    """Numbers grow with each worker that is replaced, and the table doesn't."""
    for worker in range(1, 1000):
        table.publish(worker, 0.0, 5)
    assert not table.should_yield(1000, 0.0, 5)
    table.publish(1, 0.0, 0)
    assert table.should_yield(2, 0.0, 1)
    assert not table.should_yield(65, 0.0, 1), "65 has the slot of 1, which it takes for its own"
    table.publish(65, 0.0, 7)
    assert not table.should_yield(2, 0.0, 1)


def test_what_is_told_after_a_fork_is_seen_by_the_other(table: LoadTable) -> None:
    child = os.fork()
    if child == 0:
        table.publish(1, 0.0, 0)
        os._exit(0)
    os.waitpid(child, 0)
    assert table.should_yield(2, 0.0, 1)


def test_connections_that_come_together_are_shared(serve: Serve) -> None:
    gunicorn = serve("zoo", "-w", "2", "--keep-alive", "60", config=limits(yield_seconds=2.0))
    gunicorn.wait_for_workers(2)
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(gunicorn.address)) for _ in range(16)]
        for connection in connections:
            connection.send(request("/pid"))
        answers = [connection.answer() for connection in connections]
        pids = Counter(answer.body for answer in answers if answer)
    assert sum(pids.values()) == 16
    assert min(pids.values()) >= 5, pids
    assert len(pids) == 2, pids


def test_a_worker_that_hangs_does_not_keep_the_others_from_accepting(serve: Serve) -> None:
    """Each connection would wait for four seconds to be left to it."""
    gunicorn = serve("zoo", "-w", "2", "--keep-alive", "60", config=limits(yield_seconds=4.0))
    gunicorn.wait_for_workers(2)
    stopped, other = gunicorn.workers()
    os.kill(stopped, signal.SIGSTOP)
    try:
        with ExitStack() as stack:
            begun = monotonic()
            for _ in range(12):
                connection = stack.enter_context(Connection(gunicorn.address))
                connection.send(request("/pid"))
                answer = connection.answer()
                assert answer is not None
                assert answer.body == str(other).encode()
            assert monotonic() - begun < 40
    finally:
        os.kill(stopped, signal.SIGCONT)
