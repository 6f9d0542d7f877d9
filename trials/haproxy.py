"""The HAProxy of ``deploy/haproxy``, as it stands, in front of instances on loopback."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import ROOT, BenchmarkError, free_port

CONFIGURATION = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
BACKEND = "instances"
_START_SECONDS = 20
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Seen:
    """What HAProxy counted of its instances, all together or one."""

    status: str
    requests: int
    connection_errors: int
    retries: int
    redispatches: int
    response_errors: int
    aborted_by_server: int
    answers_5xx: int


@dataclass(frozen=True)
class HAProxy:
    """One that runs, on ``port``; ``address`` is that of its socket of statistics."""

    port: int
    address: Path
    process: subprocess.Popen[bytes]
    log: Path

    def seen(self, server: str = "BACKEND") -> Seen:
        """Return what was counted so far of ``server``, or else of all of them."""
        rows = csv.DictReader(self._ask("show stat").removeprefix("# ").splitlines())
        (row,) = (r for r in rows if (r["pxname"], r["svname"]) == (BACKEND, server))
        # Requests are counted in sessions for a backend and for a server alike.
        names = ("stot", "econ", "wretr", "wredis", "eresp", "srv_abrt", "hrsp_5xx")
        return Seen(row["status"], *(int(row[name] or 0) for name in names))

    def wait_for(self, server: str, status: str, seconds: float) -> None:
        """Wait until HAProxy takes ``server`` for up or down: ``status`` is "UP" or "DOWN"."""
        until = time.monotonic() + seconds
        # While it makes up its mind the status has a count behind it: "UP 1/2".
        while self.seen(server).status != status:
            if time.monotonic() > until:
                raise BenchmarkError(f"HAProxy did not find {server} {status} in {seconds:g} s.")
            time.sleep(_POLL_SECONDS)

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(10)
            asking.connect(str(self.address))
            asking.sendall(f"{command}\n".encode())
            parts = []
            while part := asking.recv(65536):
                parts.append(part)
        return b"".join(parts).decode()


@contextmanager
def haproxy(instances: Sequence[int], directory: Path) -> Iterator[HAProxy]:
    """Start HAProxy in front of three instances on these ports, and give it when all are up."""
    port, address, log = free_port(), directory / "haproxy.sock", directory / "haproxy.log"
    environ = {
        **os.environ,
        "HAPROXY_SOCKET": str(address),
        "LANTERN_FRONT": f"127.0.0.1:{port}",
        **{f"LANTERN_{n}": f"127.0.0.1:{own}" for n, own in enumerate(instances, 1)},
    }
    command = ["setpriv", "--pdeathsig", "TERM", "--", "haproxy", "-db", "-f", str(CONFIGURATION)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environ, stdout=output, stderr=output, start_new_session=True
        )
    proxy = HAProxy(port, address, process, log)
    try:
        until = time.monotonic() + _START_SECONDS
        while not address.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise BenchmarkError(
                    f"HAProxy did not start:\n{log.read_text(encoding='utf-8')[-2000:]}"
                )
            time.sleep(_POLL_SECONDS)
        for number in range(1, len(instances) + 1):
            proxy.wait_for(f"lantern-{number}", "UP", _START_SECONDS)
        yield proxy
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
