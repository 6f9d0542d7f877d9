"""A worker that stops loses nothing: by SIGTERM, after its requests, at a reload, when it hangs.

What is lost, precisely: a request that the application began and the client got no whole answer
to; a request sent whole before the signal and not answered, be its connection new or kept; an
answer that ends before its end. What isn't: a connection refused or closed before its first
request was answered at all while the listening socket goes away, and a kept connection that is
closed before the first byte of an answer, which every client must expect of an idle connection
(RFC 9112, section 9.3.1), as long as the application never began that request.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.worker.conftest import WAYS, Gunicorn, Serve, limits, wait_for
from tests.worker.wire import Answer, Connection, ask, request


@pytest.fixture(scope="module", params=WAYS)
def worker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_whole_requests_are_answered_before_the_end(worker: str, serve: Serve) -> None:
    gunicorn = serve("zoo", worker=worker)
    with ExitStack() as stack:
        kept = [stack.enter_context(Connection(gunicorn.address)) for _ in range(20)]
        for connection in kept:
            assert connection.send(request("/pid")).answer() is not None
        busy = stack.enter_context(Connection(gunicorn.address))
        busy.send(request("/slow?seconds=1&name=busy"))
        new = [stack.enter_context(Connection(gunicorn.address)) for _ in range(20)]
        for number, connection in enumerate(kept + new):
            connection.send(request(f"/slow?seconds=0.01&name={number}"))
        if worker == "gthread":  # which accepts while it is busy, and loses what it hasn't
            wait_for(lambda: not waiting(gunicorn))
        time.sleep(0.2)
        gunicorn.signal(signal.SIGTERM)
        for number, connection in enumerate([*kept, *new, busy]):
            answers = connection.answers()
            assert [answer.status for answer in answers] == [200], f"request {number}: {answers}"
    assert gunicorn.stop() == 0, gunicorn.text


def waiting(gunicorn: Gunicorn) -> int:
    """Give how many connections wait to be accepted, as Linux tells in proc_net_tcp(5)."""
    port = f":{gunicorn.address[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines():
        _, address, _, state, queues, *_ = line.split()
        if address.endswith(port) and state == "0A":
            return int(queues.partition(":")[2], 16)
    raise AssertionError("nobody listens")


def test_pipelined_requests_are_answered_before_the_end(serve: Serve) -> None:
    gunicorn = serve("zoo")
    with Connection(gunicorn.address) as connection:
        requests = [request(f"/slow?seconds=0.05&name={number}") for number in range(10)]
        first = connection.send(b"".join(requests)).answer()
        assert first is not None
        gunicorn.signal(signal.SIGTERM)
        rest = connection.answers()
    names = [answer.body.split()[1] for answer in (first, *rest)]
    assert names == [str(number).encode() for number in range(10)]
    assert rest[-1]["Connection"].lower() == "close"
    assert gunicorn.stop() == 0, gunicorn.text


def test_a_long_answer_goes_on_to_its_end(worker: str, serve: Serve) -> None:
    # So small a buffer takes seconds to read it all, and more beside others.
    gunicorn = serve("zoo", "--graceful-timeout", "110", worker=worker)
    with Connection(gunicorn.address, receive_buffer=4096) as connection:
        connection.send(request("/huge?blocks=200"))
        wait_for(lambda: connection.socket.recv(1, 0x2))  # MSG_PEEK
        gunicorn.signal(signal.SIGTERM)
        time.sleep(0.2)
        (answer,) = connection.answers()
    assert len(answer.body) == 200 * 65536
    assert gunicorn.stop() == 0, gunicorn.text


def test_idle_and_half_sent_connections_do_not_hold_up_the_end(serve: Serve) -> None:
    gunicorn = serve("zoo", "--keep-alive", "60", "--graceful-timeout", "60")
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(gunicorn.address)) for _ in range(6)]
        idle, silent, half, body, chunk, after = connections
        assert idle.send(request("/pid")).answer() is not None
        half.send(b"GET / HTTP/1.1\r\nHo")
        body.send(request("/", "Content-Length: 10", method="POST") + b"abc")
        chunk.send(request("/", "Transfer-Encoding: chunked", method="POST") + b"5\r\nab")
        assert after.send(request("/pid") + b"GET").answer() is not None
        assert silent
        ask(gunicorn.address)
        gunicorn.signal(signal.SIGTERM)
        assert idle.receive_all() == b""
        assert silent.receive_all() == b""
        for connection in (half, body, chunk, after):
            answer = connection.answers()[0]
            assert (answer.status, answer["Retry-After"]) == (503, "1")
    assert gunicorn.stop() == 0, gunicorn.text


def test_a_client_that_never_reads_holds_up_the_end_no_longer_than_is_graceful(
    serve: Serve,
) -> None:
    gunicorn = serve("zoo", "--graceful-timeout", "1")
    with Connection(gunicorn.address, receive_buffer=4096) as deaf:
        deaf.send(request("/huge"))
        assert deaf.socket.recv(10)
        gunicorn.signal(signal.SIGTERM)
        assert gunicorn.process.wait(120) == 0, gunicorn.text


class Load:
    """Clients that ask without a pause, on new and on kept connections, until they are stopped."""

    def __init__(self, gunicorn: Gunicorn, *, clients: int = 8) -> None:
        self.gunicorn = gunicorn
        self.stopping = threading.Event()
        self.answered: list[tuple[str, Answer]] = []
        self.unanswered: list[tuple[str, str]] = []
        self.faults: list[str] = []
        targets: list[Callable[[str], None]] = [self._ask_on_new, self._ask_on_kept]
        self.threads = [
            threading.Thread(target=targets[number % 2], args=(f"{number}",))
            for number in range(clients)
        ]
        for thread in self.threads:
            thread.start()

    def _ask_on_new(self, client: str) -> None:
        number = 0
        while not self.stopping.is_set():
            number += 1
            self._ask(f"new-{client}-{number}", None)

    def _ask_on_kept(self, client: str) -> None:
        connection: Connection | None = None
        number = 0
        while not self.stopping.is_set():
            number += 1
            connection = self._ask(f"kept-{client}-{number}", connection)
        if connection:
            connection.close()

    def _ask(self, name: str, kept: Connection | None) -> Connection | None:
        """Ask once, and give the connection where it may be used again."""
        try:
            connection = kept or Connection(self.gunicorn.address)
        except OSError:
            self.stopping.wait(0.01)  # nobody listens: no request was made
            return None
        keep = "keep-alive" if name.startswith("kept") else "close"
        answer = None
        try:
            target = f"/slow?seconds=0.002&name={name}"
            answer = connection.send(request(target, f"Connection: {keep}")).answer()
        except (AssertionError, OSError) as error:
            self.faults.append(f"{name}: {error}")
        if answer is None:
            self.unanswered.append((name, "kept" if kept else "new"))
        elif answer.status != 200 or not answer.body.endswith(name.encode()):
            self.faults.append(f"{name}: {answer}")
        else:
            self.answered.append((name, answer))
            if answer["Connection"].lower() == "keep-alive":
                return connection
        connection.close()
        return None

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def pids(self) -> Counter[bytes]:
        return Counter(answer.body.split()[0] for _, answer in self.answered)

    def assert_nothing_was_lost(self, begun: Path) -> None:
        assert not self.faults, self.faults[:5]
        names = [name for name, _ in self.answered]
        assert len(names) == len(set(names))
        lost = set(begun.read_text().split()) - set(names)
        assert not lost, f"begun by the application and never answered: {lost}"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_under_load_loses_nothing(
    workers: str, worker: str, serve: Serve, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    gunicorn = serve("zoo", "-w", workers, worker=worker, environ={"BEGUN": str(begun)})
    load = Load(gunicorn)
    wait_for(lambda: len(load.answered) > 200)
    assert gunicorn.stop() == 0, gunicorn.text
    load.stop()
    load.assert_nothing_was_lost(begun)
    assert "Traceback" not in gunicorn.text, gunicorn.text[-5000:]


def test_workers_that_end_after_their_requests_lose_nothing(
    worker: str, serve: Serve, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    flags = ("--max-requests", "60", "--max-requests-jitter", "10", "-w", "2")
    gunicorn = serve("zoo", *flags, worker=worker, environ={"BEGUN": str(begun)})
    load = Load(gunicorn)
    wait_for(lambda: len(load.pids()) >= 6)
    load.stop()
    load.assert_nothing_was_lost(begun)
    new = [name for name, kind in load.unanswered if kind == "new"]
    assert not new, f"on a new connection, with the listening socket open all the time: {new}"
    assert max(load.pids().values()) < 60 + 10 + 30, load.pids()
    assert gunicorn.stop() == 0, gunicorn.text
    assert "Traceback" not in gunicorn.text, gunicorn.text[-5000:]


def test_a_reload_under_load_loses_nothing(worker: str, serve: Serve, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    gunicorn = serve("zoo", "-w", "2", worker=worker, environ={"BEGUN": str(begun)})
    load = Load(gunicorn)
    for _ in range(2):
        before = set(gunicorn.workers())
        count = len(load.answered)
        wait_for(lambda count=count: len(load.answered) > count + 100)
        gunicorn.signal(signal.SIGHUP)
        wait_for(
            lambda before=before: (
                len(gunicorn.workers()) == 2 and not before & set(gunicorn.workers())
            )
        )
    count = len(load.answered)
    wait_for(lambda: len(load.answered) > count + 100)
    load.stop()
    load.assert_nothing_was_lost(begun)
    new = [name for name, kind in load.unanswered if kind == "new"]
    assert not new, f"on a new connection, with the listening socket open all the time: {new}"
    assert gunicorn.stop() == 0, gunicorn.text


def drain(seconds: float) -> str:
    return limits(drain_seconds=seconds)


def asked_for(seconds: float, begun: float, gunicorn: Gunicorn) -> list[Answer]:
    """Ask again and again for ``seconds`` after ``begun``, and give the answers.

    What ends later, on a busy machine, says nothing.
    """
    answers: list[Answer] = []
    while True:
        try:
            answer = ask(gunicorn.address, "/pid")
        except (AssertionError, OSError):
            if time.monotonic() < begun + seconds:
                raise
        if time.monotonic() >= begun + seconds:
            return answers
        answers.append(answer)
        time.sleep(0.02)


def test_a_service_that_is_told_to_stop_accepts_for_as_long_as_it_drains(serve: Serve) -> None:
    gunicorn = serve("zoo", "-w", "2", config=drain(3))
    gunicorn.wait_for_workers(2)
    with Connection(gunicorn.address) as kept:
        assert kept.send(request("/pid")).answer() is not None
        begun = time.monotonic()
        gunicorn.signal(signal.SIGTERM)
        gunicorn.wait_for_log("Handling signal: term")
        answers = asked_for(2, begun, gunicorn)
        assert {(answer.status, answer["Connection"]) for answer in answers} == {(200, "close")}
        last = kept.send(request("/pid")).answer()
        if time.monotonic() < begun + 3:
            assert last is not None
            assert last["Connection"] == "close"
    assert gunicorn.process.wait(120) == 0, gunicorn.text
    assert "Traceback" not in gunicorn.text


def test_one_that_is_busy_when_all_are_told_to_stop_takes_no_ones_place(
    serve: Serve, tmp_path: Path
) -> None:
    """Else the others stop accepting, and who comes waits for it."""
    gunicorn = serve("zoo", "-w", "2", config=drain(4))
    gunicorn.wait_for_workers(2)
    go_on = tmp_path / "go-on"
    with Connection(gunicorn.address) as busy:
        busy.send(request(f"/work-after?in-the-iterable&path={go_on}"))
        assert busy.answer() is not None  # and its worker goes on with it
        begun = time.monotonic()
        gunicorn.signal(signal.SIGTERM)
        answers = asked_for(2, begun, gunicorn)
        go_on.touch()
    assert {answer.status for answer in answers} == {200}
    assert gunicorn.process.wait(120) == 0, gunicorn.text


def test_a_worker_whose_place_is_taken_does_not_drain(serve: Serve) -> None:
    gunicorn = serve("zoo", "-w", "2", "--graceful-timeout", "400", config=drain(300))
    before = set(gunicorn.workers())
    gunicorn.signal(signal.SIGHUP)
    wait_for(lambda: len(gunicorn.workers()) == 2 and not before & set(gunicorn.workers()))
    gunicorn.wait_for_workers(2)
    gunicorn.signal(signal.SIGINT)
    assert gunicorn.process.wait(120) == 0, gunicorn.text


def test_an_application_that_hangs_is_ended_and_replaced(worker: str, serve: Serve) -> None:
    if worker == "gthread":
        pytest.skip("gthread beats on while one of its threads hangs")
    gunicorn = serve("zoo", "--timeout", "2", "--preload", worker=worker)
    before = gunicorn.worker()
    with Connection(gunicorn.address) as connection:
        received = connection.send(request("/slow?seconds=60")).receive_all()
    assert not received.startswith(b"HTTP/1.1 200"), received
    assert int(ask(gunicorn.address, "/pid").body) != before
    assert "WORKER TIMEOUT" in gunicorn.text


def test_a_worker_that_waits_or_streams_is_not_taken_for_hung(worker: str, serve: Serve) -> None:
    gunicorn = serve("zoo", "--timeout", "2", worker=worker)
    before = gunicorn.worker()
    with Connection(gunicorn.address, receive_buffer=4096) as slow:
        slow.send(request("/huge?blocks=4000"))
        begun = time.monotonic()
        while time.monotonic() - begun < 3:
            assert slow.socket.recv(200_000)
            time.sleep(0.05)
        assert gunicorn.worker() == before
    assert "WORKER TIMEOUT" not in gunicorn.text, gunicorn.text


def test_a_worker_whose_master_vanished_ends(serve: Serve) -> None:
    gunicorn = serve("zoo")
    pid = gunicorn.worker()
    os.kill(gunicorn.process.pid, signal.SIGKILL)
    gunicorn.process.wait()
    wait_for(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop_is_quick_with_connections_open(number: signal.Signals, serve: Serve) -> None:
    flags = ("--keep-alive", "300", "--graceful-timeout", "300")
    gunicorn = serve("zoo", *flags, covered=False)  # an exception from a signal can hang coverage
    with Connection(gunicorn.address) as idle, Connection(gunicorn.address) as half:
        assert idle.send(request("/pid")).answer() is not None
        half.send(b"GET / HTTP/1.1\r\n")
        ask(gunicorn.address)
        gunicorn.signal(number)
        assert gunicorn.process.wait(100) == 0, gunicorn.text
