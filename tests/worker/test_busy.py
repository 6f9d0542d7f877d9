"""A worker that is never at rest keeps its deadlines, accepts, and serves all its clients in turn.

What a worker may do only when nothing else is to do, it never does under load.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.worker.conftest import Gunicorn, Serve, limits, stopped, wait_for
from tests.worker.wire import Answer, Connection, ask, request

SECONDS = 1.0
"""The deadlines for what arrives."""


class Clients:
    """Clients that ask on kept connections without a pause, until they are stopped."""

    def __init__(self, gunicorn: Gunicorn, target: str, number: int) -> None:
        self.gunicorn = gunicorn
        self.target = target
        self.stopping = threading.Event()
        self.answered = 0
        self.faults: list[str] = []
        self.threads = [threading.Thread(target=self._ask) for _ in range(number)]

    def _ask(self) -> None:
        try:
            while not self.stopping.is_set():
                with Connection(self.gunicorn.address) as connection:
                    self._ask_on(connection)
        except (AssertionError, OSError) as error:
            self.faults.append(repr(error))

    def _ask_on(self, connection: Connection) -> None:
        while not self.stopping.is_set():
            answer = connection.send(request(self.target)).answer()
            if answer is None:
                return  # this client was too slow itself
            assert answer.status == 200
            self.answered += 1


@contextmanager
def kept_busy(
    gunicorn: Gunicorn, target: str = "/slow?seconds=0.002", number: int = 2
) -> Iterator[Clients]:
    """Have the worker always have a request to serve."""
    clients = Clients(gunicorn, target, number)
    for thread in clients.threads:
        thread.start()
    try:
        wait_for(lambda: clients.answered > 10)
        yield clients
    finally:
        clients.stopping.set()
        for thread in clients.threads:
            thread.join()
    assert not clients.faults


@pytest.fixture(scope="module")
def hurried(serve: Serve) -> Gunicorn:
    """A worker whose deadlines are short."""
    config = limits(headers_timeout_seconds=SECONDS, body_timeout_seconds=SECONDS)
    return serve("zoo", "--keep-alive", "2", "--timeout", "2", config=config)


def get(connection: Connection, target: str = "/") -> Answer:
    answer = connection.send(request(target)).answer()
    assert answer is not None, f"closed instead of answering {target}"
    return answer


def recorded(gunicorn: Gunicorn) -> list[str]:
    steps: list[str] = ask(gunicorn.address, "/recorded").json()
    return steps


def test_deadlines_are_kept_while_others_keep_the_worker_busy(hurried: Gunicorn) -> None:
    post = request("/", "Content-Length: 10", method="POST")
    with kept_busy(hurried), ExitStack() as stack:
        head, body, silent, idle = (
            stack.enter_context(Connection(hurried.address)) for _ in range(4)
        )
        head.send(b"GET / HTTP/1.1\r\nHo")
        body.send(post + b"abc")
        idle.send(request())
        assert [answer.status for answer in head.answers()] == [408]
        assert [answer.status for answer in body.answers()] == [408]
        assert [answer.status for answer in idle.answers()] == [200]
        assert silent.answers() == []


def test_a_client_that_never_reads_is_let_go_by_a_busy_worker(hurried: Gunicorn) -> None:
    with kept_busy(hurried), Connection(hurried.address, receive_buffer=4096) as deaf:
        deaf.send(request("/huge?name=deaf"))
        wait_for(
            lambda: "deaf closed" in recorded(hurried),
            describe=lambda: "an answer that nobody reads to be given up",
        )


FEW_FILES = """
import resource

def post_worker_init(worker):
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
"""


def test_a_busy_worker_that_could_open_no_more_files_accepts_again(serve: Serve) -> None:
    gunicorn = serve("zoo", config=FEW_FILES)
    with kept_busy(gunicorn):
        with ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(Connection(gunicorn.address))
            gunicorn.wait_for_log("Can't accept connections")
        assert ask(gunicorn.address).status == 200


def test_a_body_that_comes_fast_is_in_time_however_long_the_turns_of_the_others(
    serve: Serve,
) -> None:
    """With 64 KiB a turn, each of which takes 0.16 s at least, it would take 38 s."""
    gunicorn = serve("zoo", config=limits(body_timeout_seconds=25.0))
    body = b"a" * (15 << 20)
    with kept_busy(gunicorn, "/slow?seconds=0.02", 8):
        answer = ask(gunicorn.address, "/unread", method="POST", body=body)
    assert answer.status == 200


@pytest.mark.parametrize(
    ("target", "method"),
    [("/until-released?", "GET"), ("/until-released?blocks&", "HEAD")],
    ids=["empty parts", "a stream to HEAD"],
)
def test_an_answer_that_sends_nothing_for_long_leaves_the_others_served(
    target: str, method: str, hurried: Gunicorn
) -> None:
    before = hurried.worker()
    with Connection(hurried.address) as connection:
        connection.send(request(f"{target}name={method}", method=method))
        begun = time.monotonic()
        while time.monotonic() - begun < 3:  # beyond --timeout 2
            assert ask(hurried.address).status == 200
            time.sleep(0.05)
        ask(hurried.address, f"/release?name={method}")
        answer = connection.answer(head=method == "HEAD")
    assert answer is not None
    assert answer.body == (b"released" if method == "GET" else b"")
    assert f"{method} was released" in recorded(hurried)
    assert hurried.worker() == before, hurried.text[-5000:]


def test_a_short_request_comes_before_the_many_whose_long_answers_go_on(serve: Serve) -> None:
    """All have room for more at once, as after a pause of the network."""
    zoo = serve("zoo")
    with ExitStack() as stack:
        asker = stack.enter_context(Connection(zoo.address))
        readers = [
            stack.enter_context(Connection(zoo.address, receive_buffer=65536)) for _ in range(20)
        ]
        for number, reader in enumerate(readers):
            reader.send(request(f"/huge?blocks=100000&name=long{number}"))
            assert reader.socket.recv(1)
        before = steps_when_at_rest(asker)
        with stopped(zoo):
            for reader in readers:
                reader.socket.settimeout(0.2)
                with suppress(TimeoutError):
                    while reader.socket.recv(1 << 20):
                        pass
            asker.send(request("/recorded"))
        answer = asker.answer()
        assert answer
        went_on = {step.split()[0] for step in answer.json()[len(before) :]}
        assert len(went_on) < len(readers) / 2


def steps_when_at_rest(asker: Connection) -> list[str]:
    """Wait until the worker gives nothing more, and return what it did until then."""
    steps: list[str] = []

    def are_all() -> bool:
        nonlocal steps
        before = steps
        answer = asker.send(request("/recorded")).answer()
        assert answer
        steps = answer.json()
        return steps == before

    wait_for(are_all)
    return steps


def test_a_worker_that_is_busy_for_longer_than_its_timeout_is_not_taken_for_hung(
    hurried: Gunicorn,
) -> None:
    """The requests are short, and come all at once."""
    before = hurried.worker()
    with ExitStack() as stack:
        first, *others = (stack.enter_context(Connection(hurried.address)) for _ in range(9))
        for connection in (first, *others):
            get(connection)
        first.send(request("/slow?seconds=0.3"))
        for connection in others:
            connection.send(request("/slow?seconds=0.4"))
        for connection in (first, *others):
            answer = connection.answer()
            assert answer is not None, hurried.text[-5000:]
            assert answer.status == 200
    assert hurried.worker() == before, hurried.text[-5000:]
