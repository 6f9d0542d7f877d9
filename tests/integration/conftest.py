"""Real Gunicorns on loopback, each on a free port, ended after the test that started them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from benchmarks.servers import free_port
from tests.conftest import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

START_SECONDS = 180


class Server:
    """A Gunicorn that was started for a test, its address, and what it logged.

    ``environ`` is the environment that it inherits; ``options`` are for `subprocess.Popen`.
    """

    def __init__(
        self,
        arguments: list[str],
        settings: dict[str, str],
        log: Path,
        environ: Mapping[str, str] = os.environ,
        **options: Any,
    ) -> None:
        port = free_port()
        scheme = "https" if "--certfile" in arguments else "http"
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.port = port
        self.log = log
        environ = {k: v for k, v in environ.items() if not k.startswith("LANTERN_")}
        # Unless a test is about overload, nobody is refused because this machine is slow.
        environ["LANTERN_LIMITS__QUEUE_BUDGET_MS"] = "60000"
        environ |= {f"LANTERN_{k}": v for k, v in settings.items()}
        # The script, as users start it: `python -m gunicorn` can't start a new master by SIGUSR2.
        gunicorn = str(Path(sys.executable).with_name("gunicorn"))
        command = [gunicorn, "wsgi:app", "-b", f"127.0.0.1:{port}"]
        with log.open("wb") as file:
            options = {"stdout": file, "stderr": file} | options
            self.process = subprocess.Popen(
                [*command, *arguments], cwd=ROOT, env=environ, **options
            )

    def wait_until_up(self) -> None:
        """Wait for an answer, whatever it says."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(requests.RequestException):
                requests.get(f"{self.url}/health/live", timeout=120, verify=False)
                return
            time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.log.read_text()}")

    def lines(self, message: str | None = None) -> list[dict[str, Any]]:
        """Return the JSON lines logged so far, or those with ``message``."""
        lines = [
            json.loads(line)
            for line in self.log.read_text().splitlines()
            if line.startswith("{") and line.endswith("}")
        ]
        return [line for line in lines if message is None or line["message"] == message]

    def workers(self) -> list[int]:
        """Return the pids of the workers that live now."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def alone(server: Server, worker: int) -> Iterator[None]:
    """Have one worker answer alone: the others are stopped meanwhile, and can accept nothing."""
    others = [pid for pid in server.workers() if pid != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait until ``condition`` gives something true, and give that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain for {condition}")


@pytest.fixture(scope="module", params=["keepalive", "gthread", "sync"])
def worker_class(request: pytest.FixtureRequest) -> str:
    """Have every test that starts a server run on each of the worker classes."""
    return str(request.param)


@pytest.fixture(scope="module")
def start(
    worker_class: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Server]]:
    """Start servers: ``start("-w", "3", LIMITS__MAX_BATCH_SIZE="5")``."""
    servers: list[Server] = []

    def begin(*arguments: str, environ: Mapping[str, str] = os.environ, **settings: str) -> Server:
        log = tmp_path_factory.mktemp("server") / "log"
        settings.setdefault("SERVER__WORKER_CLASS", worker_class)
        server = Server(list(arguments), settings, log, environ)
        servers.append(server)
        server.wait_until_up()
        return server

    yield begin
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without what would make it call home."""
    from playwright.sync_api import expect, sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium here: apt-get install chromium")
    expect.set_options(timeout=120_000)
    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-sync",
        "--no-first-run",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Server:
    """One server with two workers and default settings."""
    return start("-w", "2")
