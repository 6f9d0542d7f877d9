"""How long a connection is kept, and which one is given up where there are too many."""

from __future__ import annotations

import contextlib
import socket
import time
from contextlib import ExitStack

import pytest

from tests.descriptors import open_files
from tests.worker.conftest import WORKERS, Gunicorn, Serve, in_time, limits, wait_for
from tests.worker.wire import Answer, Connection, MalformedAnswer, ask, request


@pytest.fixture(scope="module", params=WORKERS)
def worker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def get(connection: Connection, target: str = "/") -> Answer:
    answer = connection.send(request(target)).answer()
    assert answer is not None, f"closed instead of answering {target}"
    return answer


def test_the_time_that_a_connection_is_kept_counts_from_the_end_of_an_answer(
    worker: str, serve: Serve
) -> None:
    """Not from when its request came, nor is it what the client had left to read the answer."""
    gunicorn = serve("zoo", "--keep-alive", "2", "--timeout", "10", worker=worker)

    def ask_twice() -> Answer | None:
        with Connection(gunicorn.address) as connection:
            get(connection, "/slow?seconds=2.2")
            time.sleep(1.2)  # a deadline that has passed would be looked at
            return connection.send(request()).answer()

    assert in_time(2.2 + 2, ask_twice) is not None


def test_a_connection_whose_client_was_slow_to_read_is_kept_as_long_as_others(
    serve: Serve,
) -> None:
    gunicorn = serve("zoo", "--keep-alive", "300", "--timeout", "2")
    with ExitStack() as stack:

        def read_late() -> dict[Connection, int]:
            connections = [
                stack.enter_context(Connection(gunicorn.address, receive_buffer=4096)).send(
                    request(f"/huge?blocks=200&{how}")
                )
                for how in ("whole", "written", "stream")
            ]
            time.sleep(0.5)  # the sockets take no more
            return {connection: read(connection) for connection in connections}

        sizes = in_time(2, read_late)
        assert set(sizes.values()) == {200 * 65536}
        time.sleep(2.6)  # longer than --timeout
        for connection in sizes:
            assert get(connection).status == 200


def read(connection: Connection) -> int:
    """Read an answer faster than before; give its size, 0 where it doesn't come to its end."""
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    with contextlib.suppress(MalformedAnswer):
        answer = connection.answer()
        return len(answer.body) if answer else 0
    return 0


def test_a_client_that_is_slow_to_begin_is_served_where_no_connection_is_kept(
    worker: str, serve: Serve
) -> None:
    gunicorn = serve("zoo", "--keep-alive", "0", worker=worker)
    with Connection(gunicorn.address) as connection:
        time.sleep(1.2)
        (answer,) = connection.send(request()).answers()
    assert answer.status == 200
    assert answer["Connection"].lower() == "close"


@pytest.fixture(scope="module")
def shared(serve: Serve) -> Gunicorn:
    config = limits(headers_timeout_seconds=120.0, body_timeout_seconds=120.0)
    return serve("zoo", "--worker-connections", "10", "--keep-alive", "120", config=config)


@pytest.fixture
def ten(shared: Gunicorn) -> Gunicorn:
    """A worker that has ten connections at most, time for each, and none now."""
    wait_until_alone(shared)
    return shared


def wait_until_alone(gunicorn: Gunicorn) -> None:
    """Wait until no client is connected."""
    worker = gunicorn.worker()
    listening = 1
    wait_for(lambda: sockets(worker) == listening, describe=lambda: f"{sockets(worker)} sockets")


def sockets(pid: int) -> int:
    """Return the number of sockets among the open files of a process."""
    return sum(target.startswith("socket:") for target in open_files(pid).values())


def test_clients_that_say_nothing_leave_room_for_one_that_does(ten: Gunicorn) -> None:
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(Connection(ten.address))
        assert ask(ten.address).status == 200


def test_of_clients_that_were_answered_and_say_no_more_the_first_leaves(ten: Gunicorn) -> None:
    with ExitStack() as stack:
        kept = [stack.enter_context(Connection(ten.address)) for _ in range(9)]
        for connection in kept:
            assert get(connection)["Connection"].lower() == "keep-alive"
        stack.enter_context(Connection(ten.address))
        assert ask(ten.address).status == 200
        assert kept[0].receive_all() == b""
        for connection in kept[1:]:
            assert get(connection).status == 200


def test_a_client_that_has_just_been_answered_does_not_have_to_leave(ten: Gunicorn) -> None:
    """Its next request may be under way."""

    def ask_twice() -> list[Answer | None]:
        wait_until_alone(ten)
        begun = time.monotonic()
        with ExitStack() as stack:

            def connect() -> Connection:
                return stack.enter_context(Connection(ten.address))

            kept = [connect() for _ in range(9)]
            for connection in kept:
                assert get(connection)["Connection"].lower() == "keep-alive"
            connect()
            new = connect().send(request())
            time.sleep(0.2)  # so that it would be accepted
            answers = [connection.send(request()).answer() for connection in kept]
            asked_within = time.monotonic() - begun
            assert new.answer() is not None
        # After a second a client that was answered may have to leave.
        return answers if asked_within < 0.9 else []

    answers = wait_for(ask_twice)  # unless this machine is slow
    assert None not in answers
