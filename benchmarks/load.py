"""Load: wrk for small requests, a few connections of our own for batches, and what came of it."""

from __future__ import annotations

import http.client
import json
import math
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from benchmarks.servers import BenchmarkError, Server

CONNECTIONS = 16
BATCH_CONNECTIONS = 2
_LUA = Path(__file__).with_name("wrk.lua")
_JSON = {"Content-Type": "application/json"}
_SETTLE_SECONDS = 0.05
"""After the last answer: what a server still does for it (its log, its metrics) counts, too."""


@dataclass(frozen=True)
class Load:
    """What a load saw; latencies in milliseconds, and every fault in words."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    faults: tuple[str, ...] = ()

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True)
class Measured:
    """A load, and the processor time that the server took for each of its requests, in µs.

    ``busiest_share`` is the busiest worker's part of it. The kernel hands a new connection to
    whichever worker accepts it first, so now and then one worker has all of them: such a slot has
    half the throughput and the same processor time a request. It happens to every server.
    """

    load: Load
    cpu_us: float
    busiest_share: float


def require_programs() -> None:
    """Raise `BenchmarkError` unless the programs that every measurement needs are installed."""
    if not (shutil.which("wrk") and shutil.which("setpriv")):
        raise BenchmarkError("wrk and setpriv are needed (Debian's packages wrk and util-linux).")


def parse_wrk(output: str) -> Load:
    """Read what ``wrk.lua`` printed at the end. Raises `BenchmarkError` when it is not there."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise BenchmarkError(f"wrk said nothing of what it measured:\n{output[-2000:]}")
    said = json.loads(lines[-1])
    kinds = {
        "status": "answers that were not 2xx",
        "connect": "connections refused",
        "read": "reads failed",
        "write": "writes failed",
        "timeout": "requests timed out",
    }
    faults = [f"{said[kind]:,} {words}" for kind, words in kinds.items() if said[kind]]
    if not said["requests"]:
        faults.append("no request was answered")
    return Load(
        said["requests"],
        said["duration_us"] / 1e6,
        said["p50_us"] / 1e3,
        said["p99_us"] / 1e3,
        tuple(faults),
    )


def wrk(
    server: Server,
    path: str,
    seconds: float,
    *,
    bodies: Path | None = None,
    whole: Sequence[Path] = (),
    headers: Mapping[str, str] | None = None,
    connections: int = CONNECTIONS,
    pipelined: int = 1,
) -> Load:
    """Load ``path`` from one thread of wrk: POSTs of the lines of ``bodies`` in JSON, or of the
    files ``whole``, with ``headers``, or GETs.

    So many of the lines as ``pipelined`` says are sent at once on a connection; latencies are then
    those of the last answer to them. wrk counts an answer of 400 and above as a fault; that the
    path answers 200 and does not redirect is looked at before.
    """
    # wrk takes whole seconds, and ends sooner by an interrupt.
    command = ["stdbuf", "-oL", "wrk", "-t1", f"-c{connections}", f"-d{math.ceil(seconds)}s"]
    command += ["--timeout", "10s", "-s", str(_LUA), f"{server.url}{path}"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    if bodies:
        command += ["--", "lines", str(pipelined), str(bodies)]
    elif whole:
        command += ["--", "whole", *map(str, whole)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    ) as process:
        assert process.stdout
        output = process.stdout.readline()  # "Running ...", when it begins
        if seconds < math.ceil(seconds):
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
        # Not `communicate`: more than the line may have been read, and it knows nothing of that.
        output += process.stdout.read()
    if process.returncode:
        raise BenchmarkError(f"wrk failed: {output.strip()}")
    return parse_wrk(output)


def exchange(server: Server, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Send one request on a connection of its own; give the status and the body of the answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("POST" if body else "GET", path, body, _JSON if body else {})
        response = connection.getresponse()
        return response.status, response.read()


def batches(
    server: Server,
    path: str,
    seconds: float,
    bodies: Sequence[bytes],
    *,
    headers: Mapping[str, str] = _JSON,
    connections: int = BATCH_CONNECTIONS,
) -> Load:
    """Send bodies that take long on a few connections, and wait for every answer.

    wrk drops what is under way when its time is up; with batches that take a second each, that
    would be processor time without a request to show for it.
    """
    times: list[float] = []
    faults: list[str] = []
    started = time.monotonic()

    def send(first: int) -> None:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as kept:
                for body in islice(cycle(bodies), first, None):
                    began = time.monotonic()
                    if began - started >= seconds:
                        return
                    kept.request("POST", path, body, dict(headers))
                    response = kept.getresponse()
                    response.read()
                    times.append(time.monotonic() - began)
                    if response.status != 200:
                        faults.append(f"an answer of {response.status}")
        except (OSError, http.client.HTTPException) as error:
            faults.append(f"a connection failed: {error!r}")

    threads = [threading.Thread(target=send, args=(n,)) for n in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - started
    if not times:
        return Load(0, elapsed, 0, 0, (*faults, "no request was answered"))
    times.sort()
    p50, p99 = (times[min(len(times) - 1, int(len(times) * p))] * 1e3 for p in (0.5, 0.99))
    return Load(len(times), elapsed, p50, p99, tuple(faults))


def measured(server: Server, load: Callable[[], Load]) -> Measured:
    """Run a load, and see what processor time the server, workers and all, took for it."""
    before, of_workers = server.cpu_seconds(), server.cpu_seconds_of_workers()
    seen = load()
    time.sleep(_SETTLE_SECONDS)
    used = server.cpu_seconds() - before
    later = server.cpu_seconds_of_workers()
    # A server without workers is one process.
    busiest = max((later[pid] - of_workers.get(pid, 0.0) for pid in later), default=used)
    if not (seen.requests and used):
        return Measured(seen, math.nan, math.nan)
    return Measured(seen, used * 1e6 / seen.requests, busiest / used)
