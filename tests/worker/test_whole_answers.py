"""An answer that was begun comes whole, and no later than it is there."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.worker.conftest import WORKERS, Gunicorn, Serve, wait_for
from tests.worker.wire import Connection, MalformedAnswer, ask, request

GATE = """
import time
from pathlib import Path

def post_request(worker, req, environ, resp):
    if "in-the-hook" in req.query:
        begun = time.monotonic()
        path = Path(req.query.partition("path=")[2])
        while not path.exists() and time.monotonic() - begun < 120:
            time.sleep(0.01)
        end = "went on" if path.exists() else "gave up"
        worker.log.info("The hook after %s %s", req.path, end)
"""


@pytest.fixture(scope="module", params=WORKERS)
def worker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def zoo(worker: str, serve: Serve) -> Gunicorn:
    return serve("zoo", worker=worker, config=GATE)


class Pipeline:
    """A client that asks again before it has its answer, on one connection after the other."""

    AHEAD = 4

    def __init__(self, gunicorn: Gunicorn, target: str) -> None:
        self.gunicorn = gunicorn
        self.target = target
        self.stopping = threading.Event()
        self.connections = 0
        self.answered = 0
        self.faults: list[str] = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self.stopping.is_set():
            try:
                self._connect()
            except MalformedAnswer as error:
                self.faults.append(str(error)[:200])
            except OSError as error:
                self.faults.append(repr(error))

    def _connect(self) -> None:
        with Connection(self.gunicorn.address) as connection:
            self.connections += 1
            connection.send(request(self.target) * self.AHEAD)
            while (answer := connection.answer()) and not self.stopping.is_set():
                assert answer.status == 200
                self.answered += 1
                connection.send(request(self.target))

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join()


def test_workers_that_end_after_their_requests_cut_no_answer_of_a_pipeline(
    worker: str, serve: Serve
) -> None:
    gunicorn = serve("zoo", "--max-requests", "40", worker=worker)
    pipelines = [Pipeline(gunicorn, "/huge?blocks=6&sized&whole") for _ in range(3)]
    try:
        wait_for(
            lambda: gunicorn.text.count("Booting worker") > 5 or any(p.faults for p in pipelines),
            describe=lambda: f"five workers to be replaced:\n{gunicorn.text}",
        )
    finally:
        for pipeline in pipelines:
            pipeline.stop()
    assert [pipeline.faults for pipeline in pipelines] == [[], [], []]


@pytest.mark.parametrize(
    ("data", "more"),
    [
        (request("/huge?blocks=50&sized&whole", "Connection: close"), request() * 3),
        (request("/huge?blocks=50", "Connection: close"), request() * 3),
        (request("/huge?blocks=50&sized&whole", version="1.0"), b"\r\n"),
    ],
    ids=["a request more", "a request more, and a stream", "a CRLF more"],
)
def test_a_last_answer_comes_whole_to_a_client_that_has_sent_more(
    data: bytes, more: bytes, zoo: Gunicorn
) -> None:
    """To close on bytes that nobody has read would reset the connection, and take the answer."""
    with ExitStack() as stack:
        connections = [
            stack.enter_context(Connection(zoo.address, receive_buffer=20000)).send(data)
            for _ in range(5)
        ]
        time.sleep(0.02)
        for connection in connections:
            connection.send(more).end()
        time.sleep(0.2)  # so that it would be closed
        for connection in connections:
            (answer,) = connection.answers()
            assert len(answer.body) == 50 * 65536


def recorded(gunicorn: Gunicorn) -> list[str]:
    steps: list[str] = ask(gunicorn.address, "/recorded").json()
    return steps


@pytest.mark.parametrize("where", ["in-the-iterable", "in-close", "in-close-of-a-stream"])
def test_a_client_has_its_answer_before_the_application_is_done_with_it(
    where: str, zoo: Gunicorn, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    with Connection(zoo.address) as connection:
        connection.send(request(f"/work-after?{where}&name={where}&path={path}"))
        answer = connection.answer()
        path.touch()
        assert answer is not None
        assert answer.body == b"body"
    steps = wait_for(lambda: [step for step in recorded(zoo) if step.startswith(where)][1:])
    assert f"{where} went on" in steps


@pytest.mark.parametrize("target", ["/pid", "/nothing", "/stream"])
def test_a_client_has_its_answer_before_the_hook_after_it_is_done(
    target: str, zoo: Gunicorn, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    with Connection(zoo.address) as connection:
        answer = connection.send(request(f"{target}?in-the-hook={target}&path={path}")).answer()
        path.touch()
        assert answer is not None
    zoo.wait_for_log(f"The hook after {target} ")
    assert f"The hook after {target} went on" in zoo.text


def test_many_small_parts_come_whole_and_in_order(zoo: Gunicorn) -> None:
    """More than one call to the kernel takes."""
    answer = ask(zoo.address, "/writes?count=5000")
    assert answer.body == b"".join(b"%06d" % number for number in range(5000))
