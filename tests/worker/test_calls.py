"""Requests that take long wait for a thread, and run there, while the loop serves all others.

How long a call takes is in the hands of the test: it ends once there is a file.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.worker.conftest import Gunicorn, Serve, limits, wait_for
from tests.worker.wire import Answer, Connection, ask, request

THREADS = 2
CONFIG = """
import threading
from tests.worker import apps

def pool_queue(environ):
    return environ.get("HTTP_X_MODEL", "") if environ["PATH_INFO"] == "/call" else None

def post_fork(server, worker):
    worker.pool_queue = pool_queue
    worker.wait_budget = lambda environ: float(environ.get("HTTP_X_BUDGET", "inf"))
    worker.report_in_flight = lambda mean: worker.log.info("in flight: %.2f", mean)
    worker.pool_threads = 2
"""


@pytest.fixture(scope="module")
def gunicorn(serve: Serve) -> Gunicorn:
    return serve("zoo", "--log-level", "info", config=CONFIG)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def go_on(tmp_path: Path) -> Iterator[Path]:
    """The file for which the calls of a test wait; it is there after the test, at the latest."""
    path = tmp_path / "go-on"
    yield path
    path.touch()


def connect(gunicorn: Gunicorn, stack: ExitStack) -> Connection:
    """Open a connection that the worker has accepted and served once."""
    connection = stack.enter_context(Connection(gunicorn.address))
    assert connection.send(request("/pid")).answer() is not None
    return connection


def call(name: str, path: Path, *fields: str, more: str = "", body: bytes | None = None) -> bytes:
    method = "GET" if body is None else "POST"
    target = f"/call?name={name}&path={path}{more}"
    return request(target, *fields, method=method, body=body)


def answered(connection: Connection) -> Answer:
    answer = connection.answer()
    assert answer is not None
    return answer


def recorded(gunicorn: Gunicorn, word: str) -> list[str]:
    steps: list[str] = ask(gunicorn.address, "/recorded").json()
    return [step.partition(" ")[0] for step in steps if step.endswith(word)]


def fill(gunicorn: Gunicorn, stack: ExitStack, path: Path, prefix: str) -> list[Connection]:
    """Have all threads busy with a call each."""
    connections = [connect(gunicorn, stack) for _ in range(THREADS)]
    for number, connection in enumerate(connections):
        connection.send(call(f"{prefix}{number}", path))
    names = {f"{prefix}{number}" for number in range(THREADS)}
    wait_for(lambda: names <= {*recorded(gunicorn, "began")})
    return connections


def test_small_requests_are_answered_while_all_threads_are_busy(
    gunicorn: Gunicorn, stack: ExitStack, go_on: Path
) -> None:
    running = fill(gunicorn, stack, go_on, "busy")
    other = connect(gunicorn, stack)
    for _ in range(20):
        assert answered(other.send(request("/pid"))).status == 200
    assert "busy0" not in recorded(gunicorn, "ended")
    go_on.touch()
    threads = {answered(connection).body for connection in running}
    assert threads == {b"lantern-call-0", b"lantern-call-1"}


def test_those_that_wait_begin_in_the_order_they_came(
    gunicorn: Gunicorn, stack: ExitStack, go_on: Path
) -> None:
    running = fill(gunicorn, stack, go_on, "first")
    waiting = [connect(gunicorn, stack) for _ in range(6)]
    for number, connection in enumerate(waiting):
        connection.send(call(f"waiting{number}", go_on))
        time.sleep(0.01)  # so that they arrive in this order
    assert not [name for name in recorded(gunicorn, "began") if name.startswith("waiting")]
    go_on.touch()
    for connection in (*running, *waiting):
        assert answered(connection).status == 200
    began = [name for name in recorded(gunicorn, "began") if name.startswith("waiting")]
    assert began == [f"waiting{number}" for number in range(6)]


def flooded(gunicorn: Gunicorn) -> set[str]:
    """Return which calls of a flood have begun."""
    return {name for name in recorded(gunicorn, "began") if name.startswith("flood")}


def test_calls_for_a_model_that_do_not_end_leave_a_thread_to_those_for_others(
    serve: Serve, stack: ExitStack, go_on: Path
) -> None:
    gunicorn, done = serve("zoo", config=CONFIG), Path(os.devnull)
    fast = connect(gunicorn, stack)
    assert answered(fast.send(call("known", done, "X-Model: fast"))).status == 200
    flood = [connect(gunicorn, stack) for _ in range(6)]
    for number, connection in enumerate(flood):
        connection.send(call(f"flood{number}", go_on, "X-Model: slow"))
    wait_for(lambda: flooded(gunicorn))
    for number in range(10):
        assert answered(fast.send(call(f"fast{number}", done, "X-Model: fast"))).status == 200
    assert len(flooded(gunicorn)) == 1, "none took the thread that was free in between"
    go_on.touch()
    for connection in flood:
        assert answered(connection).status == 200


def test_calls_for_another_model_begin_when_the_first_of_a_flood_ends(
    serve: Serve, stack: ExitStack, tmp_path: Path, go_on: Path
) -> None:
    """Also where the flood took all threads before there was another."""
    gunicorn, first = serve("zoo", config=CONFIG), tmp_path / "first"
    flood = [connect(gunicorn, stack) for _ in range(6)]
    for number, connection in enumerate(flood):
        path = go_on if number else first
        connection.send(call(f"flood{number}", path, "X-Model: slow"))
        begun = min(number + 1, THREADS)
        wait_for(lambda begun=begun: len(flooded(gunicorn)) == begun)
    fast = connect(gunicorn, stack)
    fast.send(call("fast", Path(os.devnull), "X-Model: fast"))
    for _ in range(2):
        ask(gunicorn.address, "/pid")  # the worker has read what came before
    first.touch()
    assert answered(fast).status == 200
    assert len(flooded(gunicorn)) == THREADS, "no other of the flood has begun"
    go_on.touch()
    for connection in flood:
        assert answered(connection).status == 200


def test_one_that_waited_for_longer_than_it_may_is_marked_while_the_others_still_run(
    gunicorn: Gunicorn, stack: ExitStack, go_on: Path
) -> None:
    """Whatever it is that it waits for, and in whatever order budgets end."""
    running = fill(gunicorn, stack, go_on, "long")
    patient, hurried = connect(gunicorn, stack), connect(gunicorn, stack)
    patient.send(call("patient", go_on))
    hurried.send(call("hurried", Path(os.devnull), "X-Budget: 0.05", more="&overdue"))
    assert answered(hurried).body == b"MainThread", "an application refuses it there at once"
    assert not {"long0", "long1"} & {*recorded(gunicorn, "ended")}
    assert "patient" not in recorded(gunicorn, "began")
    go_on.touch()
    for connection in (*running, patient):
        assert answered(connection).status == 200


def test_one_whose_client_left_while_it_waited_does_not_begin(
    gunicorn: Gunicorn, stack: ExitStack, go_on: Path
) -> None:
    running = fill(gunicorn, stack, go_on, "kept")
    for number in range(3):
        connection = connect(gunicorn, stack)
        connection.send(call(f"left{number}", go_on))
        wait_for(lambda: in_flight(gunicorn) >= THREADS)
        connection.reset()
    ask(gunicorn.address, "/pid")
    last = connect(gunicorn, stack).send(call("last", go_on))
    go_on.touch()
    for connection in (*running, last):
        assert answered(connection).status == 200
    assert not [name for name in recorded(gunicorn, "began") if name.startswith("left")]


def in_flight(gunicorn: Gunicorn) -> float:
    """Return the mean number of requests in flight in the last second, as the worker said it."""
    return float(re.findall(r"in flight: ([0-9.]+)", gunicorn.text)[-1])


def test_calls_that_wait_or_run_are_in_flight(
    gunicorn: Gunicorn, stack: ExitStack, go_on: Path
) -> None:
    running = fill(gunicorn, stack, go_on, "flying")
    waiting = [connect(gunicorn, stack).send(call("waits", go_on)) for _ in range(3)]
    wait_for(lambda: 4.5 < in_flight(gunicorn) < 6)
    go_on.touch()
    for connection in (*running, *waiting):
        answered(connection)
    wait_for(lambda: in_flight(gunicorn) < 0.5)


COUNTED = (
    CONFIG
    + """
from app.worker import KeepAliveWorker
step = KeepAliveWorker._step

def counted(self):
    apps.recorded.append("the loop turned")
    step(self)

KeepAliveWorker._step = counted
"""
)


def test_a_client_that_leaves_while_its_call_runs_changes_nothing_and_costs_nothing(
    serve: Serve, stack: ExitStack, go_on: Path
) -> None:
    gunicorn = serve("zoo", config=COUNTED)
    for number in range(THREADS):
        connection = connect(gunicorn, stack)
        connection.send(call(f"gone{number}", go_on, more="&stream"), request("/pid"))
        wait_for(lambda number=number: f"gone{number}" in recorded(gunicorn, "began"))
        connection.reset()
    before = len(recorded(gunicorn, "the loop turned"))
    time.sleep(0.5)
    assert len(recorded(gunicorn, "the loop turned")) - before < 100
    waiting = connect(gunicorn, stack).send(call("waiting", go_on))
    assert "waiting" not in recorded(gunicorn, "began"), "the threads are not free"
    go_on.touch()
    assert answered(waiting).status == 200
    wait_for(lambda: {"gone0", "gone1"} <= {*recorded(gunicorn, "closed")})
    assert "Traceback" not in gunicorn.text


def test_what_comes_behind_a_call_waits_for_its_answer(
    gunicorn: Gunicorn, stack: ExitStack, go_on: Path
) -> None:
    connection = connect(gunicorn, stack)
    connection.send(call("piped", go_on) + request("/pid") * 2 + call("again", go_on))
    wait_for(lambda: "piped" in recorded(gunicorn, "began"))
    connection.send(request("/unread", method="POST", body=b"a" * 100_000))
    go_on.touch()
    bodies = [answered(connection).body for _ in range(5)]
    assert bodies[0].startswith(b"lantern-call-")
    assert bodies[1] == bodies[2] == str(gunicorn.worker()).encode()
    assert bodies[3].startswith(b"lantern-call-")
    assert bodies[4] == b"ok"


def test_a_call_answers_in_http_1_0_and_in_parts(gunicorn: Gunicorn, go_on: Path) -> None:
    go_on.touch()
    for more, body in (("", b"lantern-call-"), ("&write", b"written, lantern-call-")):
        for way in ("", "&stream"):
            with Connection(gunicorn.address) as connection:
                target = f"/call?path={go_on}{more}{way}"
                (answer,) = connection.send(request(target, version="1.0")).answers()
                assert answer.body.startswith(body)
            with Connection(gunicorn.address) as connection:
                for _ in range(2):
                    assert answered(connection.send(request(target))).body.startswith(body)


def test_a_call_that_fails_is_answered_500_once_and_the_worker_goes_on(
    gunicorn: Gunicorn, go_on: Path
) -> None:
    go_on.touch()
    before = gunicorn.worker()
    with Connection(gunicorn.address) as connection:
        connection.send(call("failing", go_on, more="&fail"), request("/pid"))
        (answer,) = connection.answers()
    assert answer.status == 500
    assert gunicorn.text.count("Error handling request GET /call?name=failing") == 1
    assert "SystemExit: this call failed" in gunicorn.text
    with Connection(gunicorn.address) as connection:
        received = connection.send(call("midway", go_on, more="&fail&write")).receive_all()
    assert b"\r\nwritten, " in received
    assert not received.endswith(b"0\r\n\r\n"), "the client can tell that it isn't whole"
    assert ask(gunicorn.address, "/pid").body == str(before).encode()


HOOKS = (
    CONFIG
    + """
def pre_request(worker, request):
    apps.recorded.append(f"{threading.current_thread().name} pre {request.path}")

def post_request(worker, request, environ, response):
    apps.recorded.append(f"{threading.current_thread().name} post {request.path}")
"""
)


def test_hooks_run_in_the_thread_of_the_loop(serve: Serve, stack: ExitStack, go_on: Path) -> None:
    gunicorn = serve("zoo", "--access-logfile", "-", config=HOOKS)
    go_on.touch()
    assert answered(connect(gunicorn, stack).send(call("hooked", go_on))).status == 200
    wait_for(lambda: recorded(gunicorn, "post /call"))
    assert recorded(gunicorn, "pre /call") == recorded(gunicorn, "post /call") == ["MainThread"]
    assert '"GET /call?name=hooked' in gunicorn.text


def test_what_is_held_for_calls_is_bounded_and_those_that_run_are_left_alone(
    serve: Serve, stack: ExitStack, go_on: Path
) -> None:
    gunicorn = serve("zoo", config=CONFIG + limits(max_held_bytes=5 << 20))
    body = b"a" * (1 << 20)
    running = [connect(gunicorn, stack) for _ in range(THREADS)]
    for connection in running:
        connection.send(call("large", go_on, body=body))
    wait_for(lambda: len(recorded(gunicorn, "began")) == THREADS)
    waiting = [connect(gunicorn, stack).send(call("more", go_on, body=body)) for _ in range(8)]
    wait_for(lambda: gunicorn.text.count("Server overloaded") >= 5)
    go_on.touch()
    assert [answered(connection).status for connection in running] == [200, 200]
    statuses = [answered(connection).status for connection in waiting]
    assert statuses.count(200) >= 2
    assert statuses.count(503) >= 5
    for _ in range(4):  # nothing is counted any more
        fresh = connect(gunicorn, stack)
        answer = answered(fresh.send(call("fresh", go_on, body=b"a" * (4 << 20))))
        assert answer.status == 200


def test_a_worker_that_stops_finishes_the_calls_that_run_and_those_that_wait(
    serve: Serve, stack: ExitStack, go_on: Path
) -> None:
    gunicorn = serve("zoo", config=CONFIG)
    running = fill(gunicorn, stack, go_on, "running")
    waiting = [connect(gunicorn, stack).send(call("waiting", go_on)) for _ in range(3)]
    gunicorn.signal(signal.SIGTERM)
    gunicorn.wait_for_log("Handling signal: term")
    time.sleep(2.5)  # connections without a request are closed by then
    go_on.touch()
    for connection in (*running, *waiting):
        (answer,) = connection.answers()
        assert (answer.status, answer["Connection"]) == (200, "close")
    assert gunicorn.stop() == 0, gunicorn.text
    assert "Traceback" not in gunicorn.text


def test_a_call_that_never_ends_does_not_hold_up_the_end(
    serve: Serve, stack: ExitStack, go_on: Path
) -> None:
    for number in (signal.SIGTERM, signal.SIGQUIT):
        gunicorn = serve("zoo", "--graceful-timeout", "1", config=CONFIG, covered=False)
        fill(gunicorn, stack, go_on, "endless")
        gunicorn.signal(number)
        assert gunicorn.process.wait(100) == 0, gunicorn.text


def test_calls_count_towards_max_requests(serve: Serve, go_on: Path) -> None:
    gunicorn = serve("zoo", "--max-requests", "5", config=CONFIG)
    go_on.touch()
    before = gunicorn.worker()
    for _ in range(5):
        assert ask(gunicorn.address, f"/call?path={go_on}").status == 200
    wait_for(lambda: gunicorn.workers() not in ([], [before]))
    assert ask(gunicorn.address, f"/call?path={go_on}").status == 200


def test_a_worker_with_a_call_that_hangs_is_replaced(
    serve: Serve, stack: ExitStack, go_on: Path
) -> None:
    gunicorn = serve("zoo", "--timeout", "2", "--preload", config=CONFIG)
    before = gunicorn.worker()
    with Connection(gunicorn.address) as connection:
        received = connection.send(call("hanging", go_on)).receive_all()
    assert not received.startswith(b"HTTP/1.1 200"), received
    assert int(ask(gunicorn.address, "/pid").body) != before
    assert "WORKER TIMEOUT" in gunicorn.text
