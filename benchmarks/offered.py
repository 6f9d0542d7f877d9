"""Offered load: requests that fall due by the clock, as callers send them, however the server does.

A closed loop, where each connection waits for its answer before it asks again, offers no more than
the server takes: it can't show an overload. Here each request that falls due takes an idle
connection, or a new one, and latency counts from when it fell due.
"""

from __future__ import annotations

import selectors
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from time import perf_counter

from benchmarks.servers import BenchmarkError, Server

MAX_CONNECTIONS = 800
"""Under the thousand that a worker takes: more under way at once would measure something else."""
CLOSED_CONNECTIONS = 16
_GIVE_UP_SECONDS = 10.0
_READ_BYTES = 65536


@dataclass
class Offered:
    """What came of an offered load. Latencies are in seconds, of answers by their status.

    It was offered for ``seconds``; the last answer came ``lasted`` seconds after the first request.
    """

    seconds: float
    lasted: float
    offered: int
    latencies: dict[int, list[float]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def count(self, status: int) -> int:
        """Return how many requests were answered with ``status``."""
        return len(self.latencies.get(status, ()))

    def quantile_ms(self, status: int, share: float) -> float:
        """Return a quantile of the latencies of answers of ``status``, in ms; 0 of none."""
        found = sorted(self.latencies.get(status, ()))
        return found[min(len(found) - 1, int(len(found) * share))] * 1e3 if found else 0.0


class _Client:
    """One load under way."""

    def __init__(self, server: Server, path: str, bodies: Sequence[bytes]) -> None:
        self._address = ("127.0.0.1", server.port)
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self._requests = cycle(
            [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
        )
        self._selector = selectors.DefaultSelector()
        self._idle: deque[socket.socket] = deque()
        self._due: dict[socket.socket, float] = {}
        self.latencies: dict[int, list[float]] = {}
        self.faults: list[str] = []

    @property
    def under_way(self) -> int:
        return len(self._due)

    def send(self, due: float) -> None:
        """Send the next request, which fell due at ``due``."""
        if self._idle:
            connection = self._idle.pop()
        elif self.under_way < MAX_CONNECTIONS:
            connection = socket.create_connection(self._address, timeout=_GIVE_UP_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(connection, selectors.EVENT_READ)
        else:
            raise BenchmarkError("The server leaves more requests unanswered than are sent here.")
        connection.sendall(next(self._requests))
        self._due[connection] = due

    def receive(self, seconds: float) -> None:
        """Take the answers that come, waiting for ``seconds`` at most."""
        for key, _ in self._selector.select(max(0.0, seconds)):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            answer = connection.recv(_READ_BYTES)
            due = self._due.pop(connection, None)
            if due is None or not answer.endswith(b"}\n"):  # each fits into one packet
                self.faults.append(f"an answer that ends early: {answer[-40:]!r}")
                self._selector.unregister(connection)
                connection.close()
                continue
            self.latencies.setdefault(int(answer[9:12]), []).append(perf_counter() - due)
            if b"\r\nConnection: close\r\n" in answer:
                self._selector.unregister(connection)
                connection.close()
            else:
                self._idle.append(connection)

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


def saturate(server: Server, path: str, bodies: Sequence[bytes], seconds: float) -> float:
    """Return the requests per second that are answered when `CLOSED_CONNECTIONS` are kept busy.

    The peak of this client and the server together, where they share a machine.
    """
    client = _Client(server, path, bodies)
    try:
        begun = perf_counter()
        while (now := perf_counter()) < begun + seconds:
            while client.under_way < CLOSED_CONNECTIONS:
                client.send(now)
            client.receive(_GIVE_UP_SECONDS)
        return sum(map(len, client.latencies.values())) / (now - begun)
    finally:
        client.close()


def offer(
    server: Server, path: str, bodies: Sequence[bytes], rate: float, seconds: float
) -> Offered:
    """Send ``rate`` requests a second for ``seconds``, evenly, and wait for all the answers.

    Raises `BenchmarkError` when this program itself couldn't keep to the rate.
    """
    client = _Client(server, path, bodies)
    number = round(rate * seconds)
    try:
        begun = perf_counter()
        for count in range(number):
            due = begun + count / rate
            while (wait := due - perf_counter()) > 0:
                client.receive(wait)
            client.receive(0)
            client.send(due)
        taken = perf_counter() - begun
        if taken > seconds * 1.05 + 0.1:
            raise BenchmarkError(
                f"{number:,} requests in {seconds:g} s are more than this program can send: "
                f"it took {taken:.1f} s."
            )
        while client.under_way and perf_counter() < begun + seconds + _GIVE_UP_SECONDS:
            client.receive(0.01)
        if client.under_way:
            client.faults.append(f"{client.under_way} requests were never answered")
        lasted = perf_counter() - begun
        return Offered(seconds, lasted, number, client.latencies, client.faults)
    finally:
        client.close()
