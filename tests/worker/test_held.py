"""What waits to be sent is bounded together with what arrives, and whoever holds the most pays."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from tests.worker.conftest import Gunicorn, Serve, limits, stopped, wait_for
from tests.worker.test_limits import let_it_read, upload
from tests.worker.test_slow_clients import MIB, heard
from tests.worker.wire import Connection, MalformedAnswer, ask, request

LIMIT = 40 * MIB
LARGE = 160  # blocks, 10 MiB: more than the kernel keeps for a client that does not read


@pytest.fixture(scope="module")
def holding(serve: Serve) -> Gunicorn:
    """A worker that holds no more than 40 MiB."""
    return serve("zoo", config=limits(max_held_bytes=LIMIT, max_body_bytes=LIMIT))


def deaf(gunicorn: Gunicorn, stack: ExitStack, target: str) -> Connection:
    """Ask for something large, and don't read it."""
    connection = stack.enter_context(Connection(gunicorn.address, receive_buffer=4096))
    connection.send(request(target, "Connection: close"))
    let_it_read(gunicorn)
    return connection


def is_whole(connection: Connection) -> bool:
    """Read after all; was the answer given up meanwhile?"""
    try:
        heard(connection)
    except MalformedAnswer:
        return False
    return True


def assert_holds_nothing(gunicorn: Gunicorn) -> None:
    """A body fits that would not if a hundredth of the limit were still counted."""

    def fits() -> bool:
        with Connection(gunicorn.address) as connection:
            connection.send(upload(LIMIT - 1000) + b"a" * (LIMIT - 1000))
            answer = connection.answer()
        assert answer is not None
        return answer.status == 200

    wait_for(fits, describe=lambda: "nothing to be held")


@pytest.mark.parametrize("how", ["whole", "whole&sized", "written"])
def test_of_many_answers_that_nobody_reads_as_many_are_kept_as_the_limit_allows(
    how: str, holding: Gunicorn
) -> None:
    with ExitStack() as stack:
        others = [deaf(holding, stack, f"/huge?blocks={LARGE // 2}&{how}") for _ in range(2)]
        large = [deaf(holding, stack, f"/huge?blocks={LARGE}&{how}") for _ in range(8)]
        assert ask(holding.address).status == 200
        assert [is_whole(connection) for connection in others] == [True, True]
        kept = [is_whole(connection) for connection in large]
    # Of the two smaller ones the kernel may have taken all, and of the others some.
    assert 2 <= sum(kept) <= 4, kept
    assert_holds_nothing(holding)


def test_arriving_and_waiting_bytes_are_counted_together(holding: Gunicorn) -> None:
    with ExitStack() as stack:
        sender = stack.enter_context(Connection(holding.address))
        sender.send(upload(LIMIT - MIB) + b"a" * (25 * MIB))
        let_it_read(holding)
        waiting = [deaf(holding, stack, f"/huge?blocks={LARGE}&whole") for _ in range(3)]
        (answer,) = sender.answers()
        assert answer.status == 503, "it holds more than any answer"
        assert answer["Retry-After"] == "1"
        assert f"{LIMIT:,}" in answer.json()["detail"]
        assert all(is_whole(connection) for connection in waiting)
    assert_holds_nothing(holding)


def test_pipelined_requests_behind_an_answer_that_nobody_reads_are_counted(serve: Serve) -> None:
    """A little for each, of many connections."""
    # The large answer takes 10 MiB of it, the parts of the others less than 2.
    gunicorn = serve("zoo", config=limits(max_held_bytes=12 * MIB + MIB * 3 // 4))
    behind = request("/", "X-Long: " + "a" * 8000) * 7
    with ExitStack() as stack:
        with stopped(gunicorn):  # so that it reads all of it at once
            for _ in range(30):
                connection = stack.enter_context(Connection(gunicorn.address, receive_buffer=4096))
                connection.send(request("/huge?blocks=80") + behind)
        let_it_read(gunicorn)
        large = deaf(gunicorn, stack, f"/huge?blocks={LARGE}&whole")
        assert not is_whole(large), "with 30 times 56 KB behind other requests it was too much"


def test_what_an_application_says_that_it_keeps_is_counted(holding: Gunicorn) -> None:
    """An answer that is made bit by bit holds what it is made of."""
    with ExitStack() as stack:
        names = [f"kept{number}" for number in range(5)]
        for name in names:
            deaf(holding, stack, f"/huge?name={name}&keeps={15 * MIB}")
        steps = ask(holding.address, "/recorded").json()
        assert sum(f"{name} closed" in steps for name in names) == 3
    assert_holds_nothing(holding)


def test_the_body_of_an_answered_request_is_not_kept_with_an_answer_that_waits(
    holding: Gunicorn,
) -> None:
    size = 9 * MIB
    with ExitStack() as stack:
        connections = []
        for _ in range(3):
            connection = stack.enter_context(Connection(holding.address, receive_buffer=4096))
            connection.send(request("/", "Connection: close", method="POST", body=b"a" * size))
            let_it_read(holding)
            connections.append(connection)
        # Three bodies beside their echoes would be more than the limit.
        assert all(heard(connection) == b"a" * size for connection in connections)


def test_a_client_that_reads_a_little_now_and_then_is_let_go(serve: Serve) -> None:
    """What it takes each time puts off the end, and not for ever."""
    config = limits(min_send_rate=1 << 40)
    gunicorn = serve("zoo", "--timeout", "2", config=config)
    with Connection(gunicorn.address, receive_buffer=65536) as slow:
        slow.send(request("/huge?blocks=1000000&name=slow"))  # 61 GiB: it is never at its end

        def is_over() -> bool:
            try:
                return not slow.socket.recv(1 << 20)
            except ConnectionResetError:
                return True

        wait_for(is_over, seconds=60, describe=lambda: "the answer to be given up")
    wait_for(lambda: "slow closed" in ask(gunicorn.address, "/recorded").json())


def test_memory_is_given_back_once_much_less_is_held(serve: Serve) -> None:
    config = limits(max_held_bytes=4 * LIMIT, headers_timeout_seconds=1) + (
        'KeepAliveWorker.release_memory = lambda self: self.log.info("given back")\n'
    )
    gunicorn = serve("zoo", config=config)
    with ExitStack() as stack:
        for _ in range(2):
            deaf(gunicorn, stack, f"/huge?blocks={LARGE}&whole")
        time.sleep(0.6)  # two beats, of a fourth of that second each
    assert "given back" not in gunicorn.text, "20 MiB are as much as a batch leaves"
    with ExitStack() as stack:
        for _ in range(12):
            deaf(gunicorn, stack, f"/huge?blocks={LARGE}&whole")
        time.sleep(0.6)
        assert "given back" not in gunicorn.text, "they are still held"
    gunicorn.wait_for_log("given back")
    time.sleep(0.6)
    assert gunicorn.text.count("given back") == 1


def test_the_largest_is_told_of_in_the_log(holding: Gunicorn) -> None:
    with ExitStack() as stack:
        for _ in range(12):
            deaf(holding, stack, f"/huge?blocks={LARGE}&whole")
        holding.wait_for_log("aborted, unread: Server overloaded")
