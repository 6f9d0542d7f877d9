"""A paced load on kept connections that checks every answer, in a process of its own.

Requests are due at a steady rate, whether or not earlier ones were answered: a server that stalls
for a second is sent what that second should have brought, and its latencies count from when a
request was due. Nothing is ever sent again: what fails is noted, and is for others to explain.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import select
import signal
import socket
import traceback
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from time import monotonic
from types import TracebackType
from typing import Any, Self

from benchmarks.servers import BenchmarkError

TIMEOUT_SECONDS = 30.0
"""How long an answer may take before the request counts as failed."""
BUCKETS_PER_SECOND = 10
"""How finely it is noted when which version answered."""
OVERLOADED = b"urn:lantern:problem:overloaded"
"""What is in an answer that refuses a request because it would have waited for too long."""
_MAX_FAILURES = 10_000
_POLL_SECONDS = 0.05
_READ_BYTES = 1 << 18
_TOLERANCE = 1e-5
_START_SECONDS = 60


@dataclass(frozen=True)
class Item:
    """A request to send, whole, and what each version has to answer: probabilities by row.

    ``path`` is where it goes. ``exact`` holds the first bytes of the answer to a single row; one
    that begins otherwise is read, and may differ in the last digits.
    """

    path: str
    request: bytes
    probabilities: Mapping[str, Sequence[Sequence[float]]]
    exact: Mapping[str, bytes] = field(default_factory=dict)

    def version_of(self, body: bytes) -> str | None:
        """Return the version whose answer ``body`` is; None when it is nobody's."""
        for version, beginning in self.exact.items():
            if body.startswith(beginning):
                return version
        try:
            document = json.loads(body)
            version = document["model_version"]
            rows = document.get("predictions", [document])
            answered = [list(row["probabilities"].values()) for row in rows]
            expected = self.probabilities[version]
            near = all(
                abs(one - other) <= _TOLERANCE
                for row, promised in zip(answered, expected, strict=True)
                for one, other in zip(row, promised, strict=True)
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return version if near else None


@dataclass(frozen=True)
class Failure:
    """A request that was not answered as it should have been, by the monotonic clock.

    ``worker`` is the part of request ids that is its worker's own, where the connection had an
    answer before; ``what`` is "reset", "timeout", "refused", "status" or "wrong answer".
    """

    sent: float
    failed: float
    what: str
    detail: str
    worker: str


@dataclass
class Second:
    """What one second saw: how many answers, and their latencies in milliseconds."""

    answers: int
    p50_ms: float
    p99_ms: float
    slowest_ms: float


@dataclass
class Tally:
    """All that a load saw, from ``began`` to ``ended`` by the monotonic clock."""

    began: float = 0.0
    ended: float = 0.0
    due: int = 0
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    right_by_path: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    """How many were told that the service is overloaded, which is neither right nor a failure."""
    failures: list[Failure] = field(default_factory=list)
    more_failures: int = 0
    versions: Counter[tuple[int, str]] = field(default_factory=Counter)
    """Right answers by tenth of a second of the monotonic clock and version."""
    seconds: dict[int, Second] = field(default_factory=dict)
    last_seen: dict[str, float] = field(default_factory=dict)
    """When the last request was sent that a worker answered, by its part of request ids."""
    reconnections: int = 0

    @property
    def right(self) -> int:
        """How many answers were right."""
        return self.right_by_path.total()

    @property
    def failed(self) -> int:
        return len(self.failures) + self.more_failures

    @property
    def rate(self) -> float:
        """Right answers a second."""
        return self.right / max(self.ended - self.began, 1e-9)


@dataclass(frozen=True)
class Plan:
    """What to send: ``items`` at random to ``port`` of loopback, on so many kept connections.

    ``rate`` is how many requests are due a second; without one, each connection sends its next
    request at once, which saturates the server or the client.
    """

    port: int
    items: Sequence[Item]
    connections: int
    rate: float | None = None
    seed: int = 0


class Load:
    """Carries out a plan while the context lasts; ``tally`` is what came of it, afterwards."""

    def __init__(self, plan: Plan) -> None:
        context = multiprocessing.get_context("spawn")  # whoever starts one may have threads
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, plan), daemon=True)
        self._process.start()
        theirs.close()
        self.tally = Tally()

    def __enter__(self) -> Self:
        self._answer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._process.kill()
        else:
            self._pipe.send("stop")
            self.tally = self._answer()
        self._process.join()
        self._pipe.close()

    def _answer(self) -> Any:
        if not self._pipe.poll(_START_SECONDS):
            self._process.kill()
            raise BenchmarkError("The load does not answer.")
        try:
            told = self._pipe.recv()
        except EOFError:
            raise BenchmarkError("The load ended before its time.") from None
        if isinstance(told, str):
            raise BenchmarkError(f"The load failed:\n{told}")
        return told


def _run(pipe: Pipe, plan: Plan) -> None:
    """Run a load until its owner says stop, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the owner's to handle
    try:
        client = _Client(plan)
        pipe.send(None)
        client.run(pipe)
        pipe.send(client.tally)
    except (EOFError, BrokenPipeError):
        pass
    except Exception:
        pipe.send(traceback.format_exc())


class _Connection:
    """A kept connection with one request under way at most."""

    __slots__ = ("due", "item", "received", "sent", "sock", "worker")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.received = b""
        self.item: Item | None = None
        self.due = self.sent = 0.0
        self.worker = ""


class _Client:
    """The loop of a load."""

    def __init__(self, plan: Plan) -> None:
        self.tally = Tally()
        self._port = plan.port
        self._random = random.Random(plan.seed)
        self._items = plan.items
        self._rate = plan.rate
        self._poller = select.epoll()
        self._open: dict[int, _Connection] = {}
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[float] = deque()
        self._missing = 0
        self._latencies: list[float] = []
        self._second = 0
        for _ in range(plan.connections):
            self._connect()

    def run(self, pipe: Pipe) -> None:
        tally = self.tally
        self._poller.register(pipe.fileno(), select.EPOLLIN)
        tally.began = now = monotonic()
        next_check = now + 1
        stopping = False
        while not stopping:
            for fd, _ in self._poller.poll(self._seconds_to_wait(now)):
                if fd == pipe.fileno():
                    pipe.recv()
                    stopping = True
                else:
                    self._read(self._open[fd])
            now = monotonic()
            self._begin_what_is_due(now)
            if now >= next_check:
                self._check(now)
                next_check = now + 1
        self._finish()
        tally.ended = monotonic()

    def _seconds_to_wait(self, now: float) -> float:
        if self._rate is None or not self._idle:
            return _POLL_SECONDS
        due = self.tally.began + self.tally.due / self._rate
        return min(max(0.0, due - now), _POLL_SECONDS)

    def _begin_what_is_due(self, now: float) -> None:
        tally = self.tally
        if self._rate is None:
            tally.due += len(self._idle)
            while self._idle:
                self._send(self._idle.popleft(), now)
            return
        while (due := tally.began + tally.due / self._rate) <= now:
            tally.due += 1
            self._waiting.append(due)
        self._send_what_waits()

    def _send_what_waits(self) -> None:
        while self._waiting and self._idle:
            self._send(self._idle.popleft(), self._waiting.popleft())

    def _finish(self) -> None:
        """Send what is due still, and wait for what is under way."""
        until = monotonic() + TIMEOUT_SECONDS
        while self._open and self._is_busy and monotonic() < until:
            for fd, _ in self._poller.poll(_POLL_SECONDS):
                if fd in self._open:
                    self._read(self._open[fd])
            self._send_what_waits()
        for connection in list(self._open.values()):
            if connection.item:
                self._fail(connection, "timeout", "no answer before the load ended")
            else:
                connection.sock.close()
        self._close_second()

    @property
    def _is_busy(self) -> bool:
        return bool(self._waiting) or any(one.item for one in self._open.values())

    # Connections

    def _connect(self) -> None:
        try:
            connection = _Connection(self._port)
        except OSError as error:
            now = monotonic()
            self._note(Failure(now, now, "refused", str(error), ""))
            self._missing += 1
            return
        fd = connection.sock.fileno()
        self._open[fd] = connection
        self._poller.register(fd, select.EPOLLIN)
        self._idle.append(connection)

    def _replace(self, connection: _Connection) -> None:
        """Open another connection in the place of one that has ended."""
        del self._open[connection.sock.fileno()]
        connection.sock.close()
        if connection.item is None:
            self._idle.remove(connection)
        self.tally.reconnections += 1
        self._connect()

    def _check(self, now: float) -> None:
        """Look for what is overdue, and try again what could not be connected."""
        for connection in list(self._open.values()):
            if connection.item and now - connection.sent > TIMEOUT_SECONDS:
                self._fail(connection, "timeout", f"no answer within {TIMEOUT_SECONDS:g} s")
        missing, self._missing = self._missing, 0
        for _ in range(missing):
            self._connect()

    # Requests

    def _send(self, connection: _Connection, due: float) -> None:
        item = self._random.choice(self._items)
        connection.item, connection.due, connection.sent = item, due, monotonic()
        self.tally.sent += 1
        try:
            sent = connection.sock.send(item.request)
        except OSError as error:
            self._fail(connection, "reset", f"while sending: {error}")
            return
        if sent < len(item.request):
            self._fail(connection, "reset", "the socket's buffer is full")

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._ended(connection, str(error))
            return
        if not data:
            self._ended(connection, "closed without an answer")
            return
        received = connection.received = connection.received + data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = received[: end + 2].lower()
        at = head.find(b"\r\ncontent-length:")
        length = int(head[at + 17 : head.find(b"\r\n", at + 2)]) if at >= 0 else 0
        if len(received) >= end + 4 + length:
            self._answered(connection, head, received[end + 4 : end + 4 + length])

    def _ended(self, connection: _Connection, how: str) -> None:
        if connection.item is None:  # kept, idle, and closed by the server: as it may
            self._replace(connection)
        else:
            self._fail(connection, "reset", how)

    def _answered(self, connection: _Connection, head: bytes, body: bytes) -> None:
        now, tally = monotonic(), self.tally
        item, connection.item, connection.received = connection.item, None, b""
        assert item is not None
        status = int(head[9:12])
        tally.statuses[status] += 1
        if not connection.worker:
            connection.worker = _worker_of(head)
        tally.last_seen[connection.worker] = connection.sent
        version = item.version_of(body) if status == 200 else None
        if status == 503 and OVERLOADED in body:
            tally.refused += 1
        elif version is not None:
            tally.right_by_path[item.path] += 1
            tally.versions[int(now * BUCKETS_PER_SECOND), version] += 1
            self._note_latency(now, now - connection.due)
        else:
            what = "wrong answer" if status == 200 else "status"
            text = f"{status} {body[:300].decode(errors='replace')}"
            self._note(Failure(connection.sent, now, what, text, connection.worker))
        self._idle.append(connection)
        if b"\r\nconnection: close" in head:
            self._replace(connection)

    def _fail(self, connection: _Connection, what: str, detail: str) -> None:
        self._note(Failure(connection.sent, monotonic(), what, detail, connection.worker))
        self._replace(connection)

    def _note(self, failure: Failure) -> None:
        if len(self.tally.failures) < _MAX_FAILURES:
            self.tally.failures.append(failure)
        else:
            self.tally.more_failures += 1

    def _note_latency(self, now: float, seconds: float) -> None:
        if int(now) != self._second:
            self._close_second()
            self._second = int(now)
        self._latencies.append(seconds)

    def _close_second(self) -> None:
        times = sorted(self._latencies)
        self._latencies = []
        if times:
            p50, p99 = (times[min(len(times) - 1, int(len(times) * p))] * 1e3 for p in (0.5, 0.99))
            self.tally.seconds[self._second] = Second(len(times), p50, p99, times[-1] * 1e3)


def _worker_of(head: bytes) -> str:
    """Return the half of a request id that is the worker's own; see `app.http.context`."""
    at = head.find(b"\r\nx-request-id:")
    return head[at + 15 : head.find(b"\r\n", at + 2)].strip()[:16].decode() if at >= 0 else ""
