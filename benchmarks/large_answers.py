"""What a large answer takes, and what others feel of it: ``python -m benchmarks.large_answers``.

One worker, a network of many classes, one caller who asks for a batch, and another who asks for
``/health/live`` again and again meanwhile.
"""

from __future__ import annotations

import argparse
import http.client
import re
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks import payloads
from benchmarks.processes import children, cpu_seconds
from benchmarks.servers import Server, lantern, running


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a row of a table for each round, and return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--callers", type=int, default=1, help="who ask for it at once")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    print("| classes | rows | answer | seconds | CPU | peak memory | slowest /health/live |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as directory:
        _pack(Path(directory, "many", "1"), options.classes)
        settings = {
            "LANTERN_MODEL__PATH": str(Path(directory, "many")),
            "LANTERN_LIMITS__MAX_ANSWER_VALUES": str(options.classes * options.rows),
        }
        body = payloads.batch(payloads.samples(options.rows, nulls=0))
        for _ in range(options.rounds):
            with running(lantern(settings=settings, workers=1), Path(directory)) as server:
                print(f"| {options.classes:,} | {options.rows:,} |", end=" ")
                print(_measure(server, body, options.callers), flush=True)
    return 0


def _pack(path: Path, classes: int) -> None:
    """Pack a small network of random weights with so many classes."""
    import torch

    from app.model.features import Feature
    from app.model.network import Network
    from app.packing.network import pack

    torch.manual_seed(1)
    names = payloads.feature_names()
    pack(
        Network(len(names), 32, classes),
        path,
        name="many",
        version="1",
        features=[Feature(name) for name in names],
        classes=[f"label {number}" for number in range(classes)],
        golden_samples=np.ones((2, len(names)), dtype=np.float32),
    )


def _measure(server: Server, body: bytes, callers: int) -> str:
    """Send ``body``, and ask how the service is until all answers are there."""
    [worker] = children(server.process.pid)
    idle, before = _memory_mib(worker, "VmRSS"), cpu_seconds(worker)
    waits: list[float] = []
    sizes: list[int] = []
    done = threading.Event()
    health = threading.Thread(target=_ask_for_health, args=(server.port, waits, done))
    asking = [
        threading.Thread(target=lambda: sizes.append(_ask(server.port, body)))
        for _ in range(callers)
    ]
    health.start()
    time.sleep(0.2)
    began = time.perf_counter()
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    seconds = time.perf_counter() - began
    done.set()
    health.join()
    return (
        f"{max(sizes, default=0) / 1e6:.1f} MB | {seconds:.2f} s | "
        f"{cpu_seconds(worker) - before:.2f} s | {idle:.0f} -> {_memory_mib(worker, 'VmHWM'):.0f}, "
        f"then {_memory_mib(worker, 'VmRSS'):.0f} MiB | {max(waits) * 1e3:.0f} ms |"
    )


def _ask(port: int, body: bytes) -> int:
    """Send a batch, and return the size of the answer, which is not looked at."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=120)) as connection:
        connection.sendall(
            b"POST /predict/batch HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        buffer = bytearray(1 << 20)
        size = received = connection.recv_into(buffer)
        if not buffer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(bytes(buffer[:received]).decode())
        while received := connection.recv_into(buffer):
            size += received
        return size


def _ask_for_health(port: int, waits: list[float], done: threading.Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with closing(connection):
        while not done.is_set():
            began = time.perf_counter()
            connection.request("GET", "/health/live")
            connection.getresponse().read()
            waits.append(time.perf_counter() - began)
            time.sleep(0.002)


def _memory_mib(pid: int, field: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    [kib] = re.findall(rf"{field}:\s+(\d+) kB", status)
    return int(kib) / 1024


if __name__ == "__main__":
    raise SystemExit(main())
