"""Real Gunicorns that something is done to, and callers who note what became of each request."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import requests

from tests.conftest import without_coverage
from tests.integration.conftest import Server, wait_for
from tests.telemetry.test_metrics import samples

PATIENCE_SECONDS = 120
"""So long nobody waits for an answer in vain: it comes, or the connection ends."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this to a system")

Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers on keep-alive workers: ``start(2, "-t", "2", MODEL__PATH="...")``.

    Without coverage, for processes that are killed; ``environ`` and ``options`` as of `Server`.
    """
    servers: list[Server] = []

    def begin(
        workers: int, *arguments: str, environ: Any = None, options: Any = None, **settings: str
    ) -> Server:
        settings.setdefault("SERVER__WORKER_CLASS", "keepalive")
        log = tmp_path / f"log-{len(servers)}"
        environ = without_coverage() | (environ or {})
        every = ["-w", str(workers), *arguments]
        server = Server(every, settings, log, environ, **(options or {}))
        servers.append(server)
        server.wait_until_up()
        wait_for(lambda: len(server.workers()) == workers)
        if not options:  # which may take the log elsewhere
            wait_for(lambda: len(server.lines("model loaded")) == workers)
        return server

    yield begin
    for server in servers:
        server.stop()


class Callers:
    """Threads that ask for predictions on kept connections, and count what became of them.

    ``answered`` counts answers by status, ``failed`` connections that were reset or ended, and
    ``silent`` requests that nothing came of in all their time.
    """

    def __init__(self, server: Server, sample: dict[str, float], number: int = 4) -> None:
        self.answered: Counter[int] = Counter()
        self.failed = 0
        self.silent = 0
        self._server = server
        self._body = json.dumps({"features": sample})
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(number)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, answers: int = 100) -> None:
        """Wait until so many more requests have been answered."""
        before = self.answered.total()
        wait_for(lambda: self.answered.total() >= before + answers)

    def _ask(self) -> None:
        with contextlib.closing(connect(self._server)) as connection:
            while not self._stopped.is_set():
                try:
                    connection.request("POST", "/predict", self._body, JSON)
                    response = connection.getresponse()
                    response.read()
                except TimeoutError:
                    outcome = "silent"
                except (OSError, http.client.HTTPException):
                    outcome = "failed"
                else:
                    outcome = ""
                with self._lock:
                    if outcome:
                        setattr(self, outcome, getattr(self, outcome) + 1)
                    else:
                        self.answered[response.status] += 1
                if outcome:
                    connection.close()  # the next request opens it again


JSON = {"Content-Type": "application/json"}


def connect(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)


def predict(server: Server, sample: dict[str, float]) -> requests.Response:
    """Ask for one prediction on a connection of its own."""
    return requests.post(
        f"{server.url}/predict", json={"features": sample}, timeout=PATIENCE_SECONDS
    )


def scrape(server: Server) -> dict[Any, float]:
    """Return the metrics, by name and labels."""
    response = requests.get(f"{server.url}/metrics", timeout=PATIENCE_SECONDS)
    assert response.status_code == 200
    return samples(response.text)


def total(metrics: dict[Any, float], name: str) -> float:
    """Sum a metric over all its labels."""
    return sum(value for (named, _), value in metrics.items() if named == name)


@contextlib.contextmanager
def small_disk(place: Path, options: str) -> Iterator[Path]:
    """Have a file system at ``place``, in memory, with ``options`` like "size=4m"."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> Path:
    """Fill a file system to its last byte, by the file that is given."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size) == size:
                    pass
    return ballast
