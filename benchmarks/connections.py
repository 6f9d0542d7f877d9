"""How callers connect: on few and many connections, several requests at once, behind a proxy.

Lantern and the peers that cost least, on `POST /predict`. Figures are of the server alone: neither
of wrk nor of the proxy, which shares the cores with it.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figures import interleaved
from benchmarks.load import Load, wrk
from benchmarks.servers import (
    BenchmarkError,
    Program,
    Server,
    all_running,
    lantern,
    peer,
    running,
)

PEERS = ("tuned", "handtuned", "granian")
"""The peers that cost least."""
CONNECTIONS = (1, 4, 16, 64, 256)
"""In a closed loop; 16 saturate two workers on two cores."""
TOGETHER = 16
"""Requests that are sent on a connection before the first is answered."""
CONNECTED, PIPELINED, PROXIED = "connections", "pipelining", "behind a proxy"
_CONFIGURATION = Path(__file__).with_name("proxy.cfg")


def connected(server: str, connections: int) -> str:
    """Name what is noted of a server on so many connections."""
    return f"{server}, {connections} connection{'s' if connections > 1 else ''}"


def connections(bench: Bench) -> None:
    """Measure `POST /predict` on 1 to 256 kept connections."""
    with all_running(_programs(), bench.directory) as servers:
        for number in CONNECTIONS:

            def load(server: Server, seconds: float, number: int = number) -> Load:
                return wrk(server, "/predict", seconds, bodies=bench.varied, connections=number)

            for server in interleaved(servers, bench.rounds):
                bench.slot(CONNECTED, server, load, connected(server.name, number))


def pipelining(bench: Bench) -> None:
    """Measure `POST /predict` on 16 kept connections, 16 requests at once on each."""

    def load(server: Server, seconds: float) -> Load:
        return wrk(server, "/predict", seconds, bodies=bench.varied, pipelined=TOGETHER)

    with all_running(_programs(), bench.directory) as servers:
        for server in interleaved(servers, bench.rounds):
            bench.slot(PIPELINED, server, load)


def proxied(bench: Bench) -> None:
    """Measure `POST /predict` behind HAProxy, which makes a connection for each request."""

    def load(server: Server, seconds: float) -> Load:
        return wrk(server, "/predict", seconds, bodies=bench.varied)

    with all_running(_programs(), bench.directory) as servers, ExitStack() as stack:
        fronts = [
            stack.enter_context(running(_proxy(server), bench.directory)) for server in servers
        ]
        # The processor time is the server's, the address the proxy's.
        reached = [
            replace(server, port=front.port) for server, front in zip(servers, fronts, strict=True)
        ]
        for server in interleaved(reached, bench.rounds):
            bench.slot(PROXIED, server, load)


def _programs() -> list[Program]:
    return [lantern(), *(peer(name) for name in PEERS)]


def _proxy(server: Server) -> Program:
    executable = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if executable is None:
        raise BenchmarkError("HAProxy is needed (Debian's package haproxy).")
    settings = {"FRONT": "127.0.0.1:{port}", "BACK": f"127.0.0.1:{server.port}"}
    arguments = ("-db", "-f", str(_CONFIGURATION))
    name = f"the proxy of {server.name}"
    return Program(name, Path(executable), arguments, _CONFIGURATION.parent, settings)
