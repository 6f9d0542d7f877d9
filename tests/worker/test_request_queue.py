"""Requests are served in the order they came; one that waits for too long is handed over marked.

A worker with one thread serves them, and is `held` meanwhile. A field X-Budget says how many
seconds a request may wait.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from app.worker.request_queue import QueueEntry, RequestQueue
from tests.worker.conftest import Gunicorn, Serve, limits, wait_for
from tests.worker.wire import Connection, ask, request

CONFIG = """
def post_fork(server, worker):
    told = []
    worker.wait_budget = lambda environ: float(environ.get("HTTP_X_BUDGET", "inf"))
    worker.report_in_flight = lambda mean: worker.log.info("in flight: %.2f", mean)
"""


@pytest.fixture(scope="module")
def gunicorn(serve: Serve) -> Gunicorn:
    return serve("zoo", config=CONFIG)


@pytest.fixture
def stack(gunicorn: Gunicorn) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connect(gunicorn: Gunicorn, stack: ExitStack) -> Connection:
    """Open a connection that the worker has accepted and served once."""
    connection = stack.enter_context(Connection(gunicorn.address))
    assert connection.send(request("/pid")).answer() is not None
    return connection


@contextmanager
def held(gunicorn: Gunicorn, stack: ExitStack, directory: Path) -> Iterator[None]:
    """Keep the worker busy with one request until the context ends."""
    go_on = directory / "go-on"
    busy = connect(gunicorn, stack)
    answer = busy.send(request(f"/work-after?in-the-iterable&path={go_on}")).answer()
    assert answer is not None  # and the worker goes on with it
    try:
        yield
    finally:
        go_on.touch()


def post(target: str, *fields: str, size: int = 10) -> bytes:
    return request(target, *fields, f"Content-Length: {size}", method="POST") + b"a" * size


def overdue(connection: Connection) -> float | None:
    """Give the seconds that the application was told of, None where it wasn't."""
    answer = connection.answer()
    assert answer is not None
    seconds: float | None = answer.json()
    return seconds


def test_requests_are_served_in_the_order_they_came(
    gunicorn: Gunicorn, stack: ExitStack, tmp_path: Path
) -> None:
    others = [connect(gunicorn, stack) for _ in range(5)]
    before = len(recorded(gunicorn))
    with held(gunicorn, stack, tmp_path):
        for number, connection in enumerate(others):
            time.sleep(0.01)
            connection.send(request(f"/stream?name=turn-{number}"))
    for connection in others:
        assert connection.answer() is not None
    closed = [step for step in recorded(gunicorn)[before:] if "closed" in step]
    assert closed == [f"turn-{number} closed" for number in range(5)]


def recorded(gunicorn: Gunicorn) -> list[str]:
    steps: list[str] = ask(gunicorn.address, "/recorded").json()
    return [step for step in steps if step.startswith("turn-")]


def test_one_that_waited_for_longer_than_it_may_is_marked(
    gunicorn: Gunicorn, stack: ExitStack, tmp_path: Path
) -> None:
    """Though it is only read when the worker has time again: the kernel knows when it came."""
    hurried, patient, free = (connect(gunicorn, stack) for _ in range(3))
    with held(gunicorn, stack, tmp_path):
        hurried.send(request("/overdue", "X-Budget: 0.2"))
        patient.send(request("/overdue", "X-Budget: 100"))
        free.send(request("/overdue"))
        time.sleep(0.3)
    waited = overdue(hurried)
    assert waited is not None
    assert 0.2 < waited < 100
    assert overdue(patient) is None
    assert overdue(free) is None


def test_what_waited_to_be_accepted_or_came_in_parts_has_waited(
    gunicorn: Gunicorn, stack: ExitStack, tmp_path: Path
) -> None:
    """A new connection, and a body that takes more than one look."""
    large = connect(gunicorn, stack)
    with held(gunicorn, stack, tmp_path):
        fresh = stack.enter_context(Connection(gunicorn.address))
        fresh.send(request("/overdue", "X-Budget: 0.2"))
        large.send(post("/overdue", "X-Budget: 0.2", size=100_000))
        time.sleep(0.3)
    for connection in (fresh, large):
        waited = overdue(connection)
        assert waited is not None
        assert 0.2 < waited < 100
    later = connect(gunicorn, stack)

    def is_in_time() -> bool:  # unless this machine is slow
        return overdue(later.send(request("/overdue", "X-Budget: 0.2"))) is None

    wait_for(is_in_time)


def test_one_that_would_wait_for_longer_is_handed_over_ahead_of_the_others(
    gunicorn: Gunicorn, stack: ExitStack, tmp_path: Path
) -> None:
    teaching, first, *line = (connect(gunicorn, stack) for _ in range(6))
    for _ in range(3):  # what requests of this size take
        assert teaching.send(post("/slow?seconds=0.3")).answer() is not None
    hurried = connect(gunicorn, stack)
    served = tmp_path / "served"
    with held(gunicorn, stack, tmp_path):
        first.send(post(f"/work-after?in-the-iterable&name=first-in-line&path={served}"))
        for connection in line:
            connection.send(post("/slow?seconds=0.01"))
        hurried.send(request("/overdue", "X-Budget: 0.9"))
    waits = overdue(hurried)  # while the first has its turn, or before that
    served.touch()
    assert waits is not None
    assert waits > 0.9
    for connection in (first, *line):
        assert connection.answer() is not None
    assert "first-in-line went on" in ask(gunicorn.address, "/recorded").json()


def test_one_that_was_held_up_does_not_count_for_all(gunicorn: Gunicorn, stack: ExitStack) -> None:
    """Others of its size are not taken to last as long."""
    teaching, *line = (connect(gunicorn, stack) for _ in range(11))
    for _ in range(5):
        assert teaching.send(post("/slow?seconds=0.01", size=1000)).answer() is not None
    assert teaching.send(post("/slow?seconds=2", size=1000)).answer() is not None
    for connection in line:
        connection.send(post("/slow?seconds=0.01", size=1000))
    hurried = connect(gunicorn, stack)
    hurried.send(post("/overdue", "X-Budget: 2.5", size=1000))
    assert overdue(hurried) is None
    for connection in line:
        assert connection.answer() is not None


def test_who_is_in_no_line_is_never_marked(gunicorn: Gunicorn, stack: ExitStack) -> None:
    connection = connect(gunicorn, stack)
    marks = []
    for _ in range(20):
        connection.send(request("/overdue", "X-Budget: 0"))
        marks.append(overdue(connection))
        time.sleep(0.01)  # idle is no waiting
    assert None in marks  # some may be held up by a busy machine, for a millisecond and more


def test_pipelined_requests_line_up_one_by_one(gunicorn: Gunicorn, stack: ExitStack) -> None:
    greedy, other = (connect(gunicorn, stack) for _ in range(2))
    greedy.send(request("/slow?seconds=0.1") * 20)
    time.sleep(0.02)
    other.send(request("/overdue", "X-Budget: 1.8"))
    assert overdue(other) is None
    for _ in range(20):
        assert greedy.answer() is not None


def test_one_that_came_behind_an_answer_did_not_wait_while_the_client_read_that(
    gunicorn: Gunicorn, stack: ExitStack
) -> None:
    client = connect(gunicorn, stack)
    client.send(request("/huge?blocks=200") + request("/overdue", "X-Budget: 0.9"))
    time.sleep(1)
    answer = client.answer()
    assert answer is not None
    assert len(answer.body) == 200 << 16, "more than the kernel takes for a client"
    assert overdue(client) is None


def test_large_bodies_that_wait_are_held_within_the_limit(serve: Serve, tmp_path: Path) -> None:
    gunicorn = serve("zoo", config=limits(max_held_bytes=3 << 20))
    with ExitStack() as stack:
        others = [connect(gunicorn, stack) for _ in range(8)]
        with held(gunicorn, stack, tmp_path):
            for connection in others:
                connection.send(post("/unread", size=1 << 20))
        statuses = [answer.status for c in others if (answer := c.answer())]
        assert set(statuses) == {200, 503}, statuses
        assert statuses.count(200) >= 2
        fresh = connect(gunicorn, stack)
        answer = fresh.send(post("/unread", size=1 << 20)).answer()
        assert answer is not None
        assert answer.status == 200, "what was held is let go"


def test_the_mean_number_in_flight_is_told(serve: Serve) -> None:
    gunicorn = serve("zoo", config=CONFIG)
    with ExitStack() as stack:
        connections = [connect(gunicorn, stack) for _ in range(4)]
        for connection in connections * 4:
            connection.send(request("/slow?seconds=0.1"))
        for connection in connections * 4:
            assert connection.answer() is not None

    def told() -> list[float]:
        lines = gunicorn.text.splitlines()
        return [float(line.rpartition(" ")[2]) for line in lines if "in flight:" in line]

    wait_for(lambda: told() and max(told()) > 1 and told()[-1] < 0.1)
    assert max(told()) < 20


TOLD = """
from app.worker.request_queue import RequestQueue

def post_fork(server, worker):
    def learn(turns, kind, seconds):
        if kind > 0:
            worker.log.info("learned")
    RequestQueue._learn = learn
"""


def test_one_that_is_refused_while_it_waits_is_known_and_teaches_nothing(serve: Serve) -> None:
    """The application can tell whose it was; requests of its size are not taken for quick ones."""
    config = TOLD + limits(max_held_bytes=3 << 20, delegates_rejections=True)
    gunicorn = serve("wording", config=config)
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(gunicorn.address)) for _ in range(8)]
        for connection in connections:
            assert connection.send(request("/")).answer() is not None
        os.kill(gunicorn.worker(), signal.SIGSTOP)  # so that all are there at once
        for connection in connections:
            connection.send(post("/large", size=1 << 20))
        os.kill(gunicorn.worker(), signal.SIGCONT)
        answers = [answer for c in connections if (answer := c.answer())]
        refused = [answer.json() for answer in answers if answer.status == 503]
    assert len(answers) == len(connections)
    assert refused
    assert ["POST", "/large", ""] in refused
    gunicorn.stop()
    assert gunicorn.text.count("learned") == len(answers) - len(refused)


class Entry(QueueEntry):
    """An entry whose request takes some milliseconds."""

    def advance(self) -> None:
        time.sleep(0.005)


def queue_with_costs() -> RequestQueue[str]:
    """Return a queue that has served one request of one byte."""
    queue: RequestQueue[str] = RequestQueue(lambda request: math.inf)
    assert queue.enqueue(Entry(queue.now), "first", 1) is None
    queue.serve(lambda entry: entry.advance(), 1)
    return queue


def test_a_request_that_is_cancelled_is_no_backlog_and_says_nothing_of_costs() -> None:
    queue = queue_with_costs()
    entry = Entry(queue.now)
    assert queue.enqueue(entry, "second", 1) is None
    cost = queue.backlog_seconds
    assert cost > 0
    queue.cancel(entry)
    assert queue.backlog_seconds == 0
    queue.serve(lambda entry: time.sleep(0.05), 1)
    queue.enqueue(Entry(queue.now), "third", 1)
    assert queue.backlog_seconds == cost


def test_a_request_beyond_its_budget_is_not_queued_and_not_looked_into() -> None:
    asked: list[object] = []

    def budget(request: object) -> float:
        asked.append(request)
        return 0.5

    queue: RequestQueue[object] = RequestQueue(budget)
    late, request = Entry(queue.now - 2), object()
    wait = queue.enqueue(late, request, 1)
    assert wait is not None
    assert wait >= 2
    assert asked == [request]
    assert not queue
    waited = queue.expire(late, request)
    assert waited is not None
    assert waited >= 2
