"""What an application raises to end its process ends one request; a signal ends the worker."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.worker.conftest import Gunicorn, Serve, wait_for
from tests.worker.wire import Connection, ask, request


@pytest.fixture(scope="module")
def zoo(serve: Serve) -> Gunicorn:
    return serve("zoo", "--keep-alive", "60")


@pytest.mark.parametrize(
    "what", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError"]
)
@pytest.mark.parametrize("where", ["call", "iteration", "close"])
def test_an_application_that_raises_to_end_ends_its_own_request_alone(
    what: str, where: str, zoo: Gunicorn
) -> None:
    before = zoo.worker()
    with ExitStack() as stack:
        busy, bad, queued, half, idle = (
            stack.enter_context(Connection(zoo.address)) for _ in range(5)
        )
        for connection in (bad, queued, idle):
            assert connection.send(request("/pid")).answer() is not None
        half.send(request("/pid")[:-2])
        busy.send(request("/slow?seconds=0.1"))
        bad.send(request(f"/raise-to-end?what={what}&where={where}"))
        queued.send(request("/pid"))
        if where == "close":
            answer = bad.answer()
            assert answer is not None
            assert answer.body == b"body"
        else:
            received = bad.receive_all()
            assert not received.endswith(b"0\r\n\r\n"), received
            assert received.startswith(b"HTTP/1.1 500" if where == "call" else b"HTTP/1.1 200")
        half.send(b"\r\n")
        idle.send(request("/pid"))
        for connection in (queued, half, idle):
            answer = connection.answer()
            assert answer is not None
            assert answer.body == str(before).encode()
        assert busy.answer() is not None
    assert zoo.worker() == before
    wait_for(lambda: what in zoo.text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("target", ["/slow?seconds=300", "/until-released?name=never"])
def test_a_quick_stop_does_not_wait_for_the_application(
    number: signal.Signals, target: str, serve: Serve, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    flags = ("--graceful-timeout", "300", "--timeout", "300")
    # Coverage keeps a lock that an exception from a signal can leave locked for ever.
    gunicorn = serve("zoo", *flags, environ={"BEGUN": str(begun)}, covered=False)
    with Connection(gunicorn.address) as idle, Connection(gunicorn.address) as connection:
        assert idle.send(request("/pid")).answer() is not None
        connection.send(request(target))
        if "slow" in target:
            wait_for(begun.exists)
        else:
            ask(gunicorn.address)
        os.kill(gunicorn.process.pid, number)
        assert gunicorn.process.wait(100) == 0, gunicorn.text
        assert connection.receive_all() == b""
        assert idle.receive_all() == b""
    assert "Error handling request" not in gunicorn.text, gunicorn.text
