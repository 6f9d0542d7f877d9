"""What can wait is done when the worker has nothing else to do: its hook ``before_waiting``."""

from __future__ import annotations

import os
import re
import signal
from contextlib import ExitStack

from tests.worker.conftest import Serve, wait_for
from tests.worker.wire import Connection, request

CONFIG = """
def post_fork(server, worker):
    worker.before_waiting = lambda: worker.log.info("idle after %d", worker.nr)
"""
REQUESTS = 30
BEFORE = 1 + REQUESTS  # the first is that of `serve`


def test_a_worker_says_when_it_is_idle_and_when_it_ends(serve: Serve) -> None:
    gunicorn = serve("zoo", config=CONFIG)
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(gunicorn.address)) for _ in range(REQUESTS)]
        for connection in connections:
            assert connection.send(request("/pid")).answer() is not None
        gunicorn.wait_for_log(f"idle after {BEFORE}")
        worker = gunicorn.worker()
        os.kill(worker, signal.SIGSTOP)
        for connection in connections:
            connection.send(request("/slow?seconds=0.005"))
        os.kill(worker, signal.SIGCONT)
        for connection in connections:
            assert connection.answer() is not None
        gunicorn.wait_for_log(f"idle after {BEFORE + REQUESTS}")
    times = {int(number) for number in re.findall(r"idle after (\d+)", gunicorn.text)}
    assert not times & {*range(BEFORE + 1, BEFORE + REQUESTS)}  # not while requests were queued
    gunicorn.signal(signal.SIGTERM)
    wait_for(lambda: gunicorn.process.poll() is not None)
    assert gunicorn.text.rindex("idle after") < gunicorn.text.rindex("Worker exiting")
