"""Clients that are many, slow, deaf or gone harm nobody but themselves."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.worker.apps import BLOCK
from tests.worker.conftest import Gunicorn, Serve, limits, wait_for
from tests.worker.wire import Answer, Connection, ask, request

MIB = 1 << 20


@pytest.fixture(scope="module")
def zoo(serve: Serve) -> Gunicorn:
    # However long a busy machine takes, no deadline is what these tests are about.
    config = limits(headers_timeout_seconds=300.0, body_timeout_seconds=300.0)
    return serve("zoo", "--worker-connections", "2000", config=config)


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1200:
        if hard < 1200:
            pytest.skip(f"no process may open more than {hard} files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (1200, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident(pid: int) -> int:
    """Give the memory of a process in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kib,) = [line.split()[1] for line in lines if line.startswith("VmRSS")]
    return int(kib) * 1024


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def get(connection: Connection, target: str = "/") -> Answer:
    answer = connection.send(request(target)).answer()
    assert answer is not None, f"closed instead of answering {target}"
    return answer


def heard(connection: Connection) -> bytes:
    """Read after all, with a buffer that is fast, and give the body of the one answer."""
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
    (answer,) = connection.answers()
    return answer.body


@pytest.mark.usefixtures("many_files")
def test_five_hundred_half_open_connections_leave_the_others_served(zoo: Gunicorn) -> None:
    head = request("/", "Content-Length: 100", method="POST")
    beginnings = [b"", b"GET", head[:-2], head, head + b"abcde"]
    with ExitStack() as stack:
        half = [
            stack.enter_context(Connection(zoo.address)).send(beginnings[number % 5])
            for number in range(500)
        ]
        kept = stack.enter_context(Connection(zoo.address))
        for _ in range(200):
            assert get(kept).status == 200
            assert ask(zoo.address).status == 200
        for number, connection in enumerate(half[:10]):
            beginning = beginnings[number % 5]
            whole = head + b"a" * 100 if beginning in head + b"abcde" else b""
            rest = request() if beginning == b"GET" else whole[len(beginning) :]
            answer = connection.send(rest[3:] if beginning == b"GET" else rest).answer()
            assert answer is not None
            assert answer.status == 200, f"sent {beginning!r}, then the rest"


@pytest.mark.parametrize("how", ["stream", "sized"])
def test_a_client_that_does_not_read_blocks_nobody_and_fills_no_memory(
    how: str, zoo: Gunicorn
) -> None:
    ask(zoo.address, f"/huge?blocks=10&{how}")
    before = resident(zoo.worker())
    with ExitStack() as stack:
        deaf = [
            stack.enter_context(Connection(zoo.address, receive_buffer=4096)).send(
                request(f"/huge?{how}&name=deaf{number}", "Connection: close")
            )
            for number in range(4)
        ]
        for _ in range(50):
            assert ask(zoo.address).status == 200
        grown = resident(zoo.worker()) - before
        assert grown < 24 * MIB, f"four answers of 50 MB that nobody reads took {grown} bytes"
        assert heard(deaf[0]) == BLOCK * 800


def test_a_whole_answer_of_50_mb_that_nobody_reads_blocks_nobody(zoo: Gunicorn) -> None:
    with Connection(zoo.address, receive_buffer=4096) as deaf:
        deaf.send(request("/huge?whole&sized", "Connection: close"))
        for _ in range(50):
            assert ask(zoo.address).status == 200
        assert heard(deaf) == BLOCK * 800


def test_a_client_that_reads_nothing_while_it_pipelines_is_not_read_without_bound(
    zoo: Gunicorn,
) -> None:
    ask(zoo.address)
    before = resident(zoo.worker())
    many = request("/huge?blocks=1") * 100
    sent = 0
    with Connection(zoo.address, receive_buffer=4096) as deaf:
        deaf.socket.settimeout(1)
        try:
            while sent < 64 * MIB:
                sent += deaf.socket.send(many)
        except TimeoutError:
            pass
        assert ask(zoo.address).status == 200
        grown = resident(zoo.worker()) - before
    assert sent < 64 * MIB, "the server reads requests whose answers nobody takes"
    assert grown < 24 * MIB, f"a client that reads nothing took {grown} bytes"


def test_a_client_with_many_requests_waits_for_its_turn(zoo: Gunicorn) -> None:
    """A pipeline is served in turn with the other connections, not before them."""
    with Connection(zoo.address) as greedy, Connection(zoo.address) as other:
        get(greedy)
        get(other)
        greedy.send(request("/slow?seconds=0.02&name=greedy") * 300)
        answer = get(other, "/recorded")
        assert answer.status == 200
        greedy.socket.settimeout(0.001)
        received = b""
        try:
            while True:
                received += greedy.socket.recv(65536)
        except TimeoutError:
            pass
        assert received.count(b"HTTP/1.1 200") < 300


def test_clients_that_vanish_leave_nothing_behind(zoo: Gunicorn) -> None:
    worker = zoo.worker()
    ask(zoo.address)
    files = open_files(worker)
    head = request("/", "Content-Length: 100", method="POST")
    for data in (
        b"",
        b"GET",
        head[:-2],
        head,
        head + b"abcde",
        request("/", "Transfer-Encoding: chunked", method="POST") + b"5\r\nab",
        request("/huge?name=vanished"),
        request("/huge?whole&sized"),
        request("/huge?blocks=100") * 10,
        request("/slow?seconds=0.01"),
        request("/write"),
    ):
        for reset in (True, False):
            connection = Connection(zoo.address, receive_buffer=4096).send(data)
            if reset:
                connection.reset()
            else:
                connection.close()
            assert ask(zoo.address).status == 200
    wait_for(lambda: open_files(worker) <= files, describe=lambda: f"{open_files(worker)} files")
    assert zoo.worker() == worker
    assert "Traceback" not in zoo.text, zoo.text[-5000:]


def test_the_iterable_of_a_client_that_vanished_is_closed_before_its_end(zoo: Gunicorn) -> None:
    with Connection(zoo.address, receive_buffer=4096) as connection:
        connection.send(request("/huge?name=left"))
        connection.socket.recv(1000)

    def closed() -> bool:
        return "left closed" in ask(zoo.address, "/recorded").json()

    wait_for(closed)
    given = ask(zoo.address, "/recorded").json().count(f"left gave {len(BLOCK)}")
    assert given < 800, "all of the answer was made for nobody"


def test_a_client_that_never_reads_is_let_go(serve: Serve) -> None:
    """Or else whoever opens connections and never reads keeps their answers in memory."""
    gunicorn = serve("zoo", "--keep-alive", "1", "--timeout", "2")
    with Connection(gunicorn.address, receive_buffer=4096) as deaf:
        deaf.send(request("/huge?name=deaf"))
        wait_for(
            lambda: "deaf closed" in ask(gunicorn.address, "/recorded").json(),
            describe=lambda: "an answer that nobody reads to be given up",
        )


def test_connections_over_the_maximum_wait_for_their_turn(serve: Serve) -> None:
    gunicorn = serve("zoo", "--worker-connections", "5", "--keep-alive", "1")
    with ExitStack() as stack:
        kept = [stack.enter_context(Connection(gunicorn.address)) for _ in range(5)]
        for connection in kept:
            connection.send(request())
        later = [stack.enter_context(Connection(gunicorn.address)) for _ in range(10)]
        for connection in later:
            connection.send(request())
        for connection in kept + later:
            assert [answer.status for answer in connection.answers()] == [200]
        assert ask(gunicorn.address).status == 200


FEW_FILES = """
import os
import resource

def post_worker_init(worker):
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
"""


def test_a_worker_that_may_open_no_more_files_waits_and_goes_on(serve: Serve) -> None:
    gunicorn = serve("zoo", config=FEW_FILES)
    worker = gunicorn.worker()
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(gunicorn.address)) for _ in range(100)]
        for connection in connections:
            connection.send(b"GET / HTTP/1.1\r\n")
        assert busy(worker) < 0.5, "it spins while it can't accept"
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(gunicorn.address)) for _ in range(100)]
        for connection in connections:
            connection.send(request("/", "Connection: close"))
        for connection in connections:
            assert [answer.status for answer in connection.answers()] == [200]
    assert gunicorn.worker() == worker, gunicorn.text
    assert "Traceback" not in gunicorn.text, gunicorn.text[-5000:]


def busy(pid: int) -> float:
    """Give the part of a second for which a process keeps a core busy."""

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(1)
    return (ticks() - before) / os.sysconf("SC_CLK_TCK")


def test_a_worker_that_waits_for_its_clients_rests(zoo: Gunicorn) -> None:
    """Clients that are idle, half sent, deaf, or have said that they send no more."""
    with ExitStack() as stack:

        def client(data: bytes) -> Connection:
            connection = Connection(zoo.address, receive_buffer=4096)
            return stack.enter_context(connection).send(data)

        kept = client(b"")
        get(kept)
        client(b"")
        client(b"GET")
        client(request("/", "Content-Length: 9", method="POST") + b"abc")
        client(request("/huge"))
        client(request("/huge")).end()
        client(request("/huge") * 3).end()
        client(request("/huge?whole")).end()
        client(request("/huge?whole") + b"GET").end()
        ask(zoo.address)
        assert busy(zoo.worker()) < 0.5
        assert ask(zoo.address).status == 200
