"""Gunicorns with one worker of either class, on the applications of these tests."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.conftest import ROOT, without_coverage
from tests.worker.wire import Address, ask

WORKERS = {
    "gthread": ("-k", "gthread", "--threads", "4"),
    "keepalive": ("-k", "app.worker.KeepAliveWorker"),
}
WAYS = WORKERS | {"in-threads": ("-k", "tests.worker.in_threads.ThreadsWorker")}
"""The worker classes, and the keep-alive worker whose requests all take long."""


T = TypeVar("T")
_TRIES = 50


class Gunicorn:
    """A Gunicorn that was started for tests: its address, its process and what it logged."""

    def __init__(
        self,
        app: str,
        *flags: str,
        worker: str,
        directory: Path,
        config: str = "",
        bind: str = "127.0.0.1:0",
        environ: dict[str, str] | None = None,
        covered: bool = True,
    ) -> None:
        self.log = directory / "log"
        config_file = directory / "config.py"
        config_file.write_text(config)
        command = [str(Path(sys.executable).with_name("gunicorn")), f"tests.worker.apps:{app}"]
        # A configuration of its own, or else Gunicorn takes Lantern's, which loads a model.
        command += ["-c", str(config_file), "--no-control-socket", "-b", bind]
        command += ["--keep-alive", "5", "-w", "1", *WAYS[worker], *flags]
        outer = os.environ if covered else without_coverage()
        inherited = {k: v for k, v in outer.items() if not k.startswith("LANTERN_")}
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=inherited | (environ or {}), stdout=file, stderr=file
            )
        self.bind = bind

    @property
    def text(self) -> str:
        return self.log.read_text()

    @functools.cached_property
    def address(self) -> Address:
        if self.bind.startswith("unix:"):
            return self.bind.removeprefix("unix:")
        host, port = re.findall(r"Listening at: http://\[?([0-9a-f.:]+?)\]?:(\d+)[ ,]", self.text)[
            0
        ]
        return host, int(port)

    def wait_until_up(self) -> None:
        """Wait until a worker answers; the application must know the path /."""
        self.wait_for_log("Listening at:")
        ask(self.address)

    def wait_for_workers(self, count: int) -> None:
        """Wait until ``count`` workers have answered /pid, as the zoo does.

        One that is still starting serves nothing, and may miss a signal.
        """
        wait_for(lambda: len({ask(self.address, "/pid").body for _ in range(10)}) == count)

    def wait_for_log(self, words: str, seconds: float = 120) -> None:
        """Wait until the log holds ``words``."""
        wait_for(
            lambda: words in self.text or self.process.poll() is not None,
            seconds,
            lambda: f"{words!r} in the log:\n{self.text}",
        )
        assert words in self.text, f"Gunicorn ended:\n{self.text}"

    def workers(self) -> list[int]:
        """Give the pids of the workers that live now."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def worker(self) -> int:
        (pid,) = self.workers()
        return pid

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """End it with SIGTERM, if it still runs, and give the exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.process.wait(120)
        except subprocess.TimeoutExpired:
            for pid in [*self.workers(), self.process.pid]:
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
            raise


def wait_for(
    condition: Callable[[], Any],
    seconds: float = 120,
    describe: Callable[[], str] = lambda: "what a test waits for",
) -> Any:
    """Wait until ``condition`` gives something true, and give that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s in vain for {describe()}")


def in_time(seconds: float, act: Callable[[], T]) -> T:
    """Give what ``act`` gives once it took less than ``seconds``.

    On a busy machine it may take longer, and says nothing then: it is done again.
    """
    for _ in range(_TRIES):
        begun = time.monotonic()
        result = act()
        if time.monotonic() - begun < seconds:
            return result
    raise AssertionError(f"this machine is too busy: it never took less than {seconds} s")


Serve = Callable[..., Gunicorn]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start Gunicorns: ``serve("echo", "--max-requests", "5", worker="gthread")``."""
    started: list[Gunicorn] = []

    def start(app: str, *flags: str, worker: str = "keepalive", **options: Any) -> Gunicorn:
        directory = tmp_path_factory.mktemp("gunicorn")
        gunicorn = Gunicorn(app, *flags, worker=worker, directory=directory, **options)
        started.append(gunicorn)
        gunicorn.wait_until_up()
        return gunicorn

    yield start
    for gunicorn in started:
        if gunicorn.process.poll() is None:
            gunicorn.signal(signal.SIGTERM)
    for gunicorn in started:
        gunicorn.stop()


@pytest.fixture(scope="module")
def reference(serve: Serve) -> Gunicorn:
    """The echo on `gthread`."""
    return serve("echo", worker="gthread")


@pytest.fixture(scope="module")
def server(serve: Serve) -> Gunicorn:
    """The echo on the keep-alive worker."""
    return serve("echo", worker="keepalive")


@contextlib.contextmanager
def stopped(gunicorn: Gunicorn) -> Iterator[None]:
    """Stop the worker meanwhile: it finds all at once what was sent."""
    worker = gunicorn.worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def limits(**values: float) -> str:
    """Write the configuration that sets limits of the worker: ``limits(max_body_bytes=10)``."""
    lines = [f"KeepAliveWorker.{name} = {value!r}" for name, value in values.items()]
    return "\n".join(["from app.worker import KeepAliveWorker", *lines, ""])
