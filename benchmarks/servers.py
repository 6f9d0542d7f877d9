"""Servers under test: how each is started, when it is ready, and that it ends with the harness."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import children, cpu_seconds

ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).resolve().parent / "peers"
VENVS = Path(__file__).resolve().parent / ".venvs"
LANTERN = "Lantern"
PEER_NAMES = ("plain", "tuned", "handtuned", "granian", "litserve")
READY = "/health/ready"
_BIND = ("-b", "127.0.0.1:{port}")
_UVICORN = (
    *("gunicorn", "app:app", "-w", "2"),
    *("-k", "uvicorn_worker.UvicornWorker"),  # with uvloop and httptools, as they are installed
    # A control socket is a thread of its own, which Lantern's configuration turns off, too.
    "--no-control-socket",
    *_BIND,
)
_COMMANDS = {
    "granian": (
        *("granian", "app:app", "--workers", "2", "--host", "127.0.0.1", "--port", "{port}"),
        *("--interface", "rsgi", "--http", "1", "--no-ws"),
    ),
    "litserve": ("python", "customers.py", "{port}"),
}
"""How peers are started that don't run under Gunicorn."""
_START_SECONDS = 120
_POLL_SECONDS = 0.003
_LOWEST_PORT = 10_000
_IDLE_SECONDS = 0.5
_IDLE_CPU_SECONDS = 0.015
"""One tick of the clock, and not two: what an idle server may use in that time."""


class BenchmarkError(Exception):
    """A measurement that can't be made, or can't be trusted; the message says which and why."""


@dataclass(frozen=True)
class Question:
    """A request: a GET, or a POST where there is a body."""

    path: str
    body: bytes = b""
    content_type: str = ""


@dataclass(frozen=True)
class Program:
    """How a server is started: its name in the tables, its command, its settings.

    ``{port}`` stands for its port in both. It is ready when ``ready``, a path or more of a request,
    is answered with 200.
    """

    name: str
    executable: Path
    arguments: tuple[str, ...]
    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    ready: str | Question = READY


def lantern(
    name: str = LANTERN, settings: Mapping[str, str] | None = None, workers: int = 2
) -> Program:
    """Describe Lantern as users start it: ``gunicorn wsgi:app``, in this interpreter's venv."""
    gunicorn = Path(sys.executable).with_name("gunicorn")
    arguments = ("wsgi:app", "-w", str(workers), *_BIND)
    return Program(name, gunicorn, arguments, ROOT, settings or {})


def peer(name: str) -> Program:
    """Describe a peer, with two workers, in a venv of its own."""
    executable, *arguments = _COMMANDS.get(name, _UVICORN)
    return Program(name, VENVS / name / "bin" / executable, tuple(arguments), PEERS / name)


@dataclass
class Server:
    """A server that runs: its address, its master's pid, where its output goes."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    seconds_to_ready: float = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """Return the processor time of the master and all its workers so far."""
        return cpu_seconds(self.process.pid)

    def cpu_seconds_of_workers(self) -> dict[int, float]:
        """Return that of each worker, by its pid."""
        return {pid: cpu_seconds(pid) for pid in children(self.process.pid)}

    def forget_log(self) -> None:
        """Empty the log, which grows by megabytes a second under load."""
        os.truncate(self.log, 0)

    def wait_until_idle(self, resting: float = 0.0) -> None:
        """Wait until the server uses no processor time: all its workers have loaded.

        ``resting`` is the share of a processor that it may use nevertheless. Raises
        `BenchmarkError` for one that never rests: it would disturb the others' slots.
        """
        most = _IDLE_CPU_SECONDS + resting * _IDLE_SECONDS
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(_IDLE_SECONDS)
            if self.cpu_seconds() - before <= most:
                return
        raise BenchmarkError(f"{self.name} uses processor time although nobody asks it anything.")


@contextmanager
def running(program: Program, directory: Path, port: int = 0) -> Iterator[Server]:
    """Start a server on a port of loopback, give it when it is ready, and stop it.

    The port is a free one unless it is named.
    """
    port = port or free_port()
    log = directory / f"{program.name.replace(' ', '-')}-{port}.log"
    command = [str(program.executable), *(_placed(each, port) for each in program.arguments)]
    settings = {name: _placed(value, port) for name, value in program.settings.items()}
    # The kernel tells the server to stop when the harness is gone, however that came about.
    command = ["setpriv", "--pdeathsig", "TERM", "--", *command]
    with log.open("ab") as output:  # appended to, so that it can be emptied in between
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=program.directory,
            env=environment(settings),
            stdout=output,
            stderr=output,
            start_new_session=True,  # a Ctrl-C is the harness's to handle
        )
    server = Server(program.name, port, process, log)
    try:
        _wait_until_ready(server, program.ready)
        server.seconds_to_ready = time.monotonic() - started
        yield server
    finally:
        _stop(process)
        log.unlink()


@contextmanager
def all_running(
    programs: Sequence[Program], directory: Path, resting: float = 0.0
) -> Iterator[list[Server]]:
    """Start several servers, and give them when none of them uses processor time any more.

    But for ``resting``, a share of a processor for each.
    """
    with ExitStack() as stack:
        servers = [stack.enter_context(running(program, directory)) for program in programs]
        with ThreadPoolExecutor(len(servers)) as pool:
            list(pool.map(lambda server: server.wait_until_idle(resting), servers))
        yield servers


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what would change or slow a server, and with ``settings``."""
    others = ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "PROMETHEUS_MULTIPROC_DIR", "PYTHONPATH")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LANTERN_", "COVERAGE_")) and name not in others
    }
    return {**kept, **settings}


def _placed(text: str, port: int) -> str:
    return text.replace("{port}", str(port))


def _wait_until_ready(server: Server, ready: str | Question) -> None:
    question = Question(ready) if isinstance(ready, str) else ready
    headers = {"Content-Type": question.content_type} if question.body else {}
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
            with contextlib.closing(connection):
                method = "POST" if question.body else "GET"
                connection.request(method, question.path, question.body or None, headers)
                if connection.getresponse().status == 200:
                    return
        time.sleep(_POLL_SECONDS)
    tail = server.log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise BenchmarkError(f"{server.name} did not start:\n{tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a master and its workers: politely, then all of its session."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the group is ours: it began with this process
    process.wait()


def free_port() -> int:
    """Return a port of loopback that is free, and stays so while a server on it is restarted.

    None that the kernel would give to a client as its own port.
    """
    path = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first_of_clients = int(path.read_text(encoding="utf-8").split()[0])
    ports = list(range(_LOWEST_PORT, max(first_of_clients, _LOWEST_PORT + 1)))
    random.shuffle(ports)
    for port in ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise BenchmarkError(f"No port between {_LOWEST_PORT} and {first_of_clients} is free.")
