"""The request queue of a worker: first come, first served, within a budget for the wait.

The queue estimates how long a new request would wait from how long requests of its size have taken.
It does not accept one that would exceed its budget, and reports one that has exceeded it: both are
rejected at once, which costs little. So no work is wasted on requests that are too late, and those
that are served are served in time, however many arrive. The queue knows nothing of sockets or HTTP,
and never looks into a request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

R = TypeVar("R")

_SURELY_IN_TIME = 0.001
"""Seconds. No budget is shorter, so for most requests it need not be computed."""
_MEAN_WEIGHT = 0.1
"""The weight of the last request in the moving mean of its size class."""
_OUTLIER = 4.0
"""A request counts as at most this many times the mean: an outlier says little about the next."""
_MARGIN = 1.5
"""The factor for the estimate: a request that is queued and rejected later has waited in vain."""
_REQUESTS_SHARE = 3.0
"""After deferred work, requests are served for this many times as long before there is more."""


class QueueEntry:
    """An entry of a `RequestQueue`: a connection, with the queue's own state of it.

    The connection sets ``arrived``, the monotonic time of the last bytes of its request, and
    ``is_closed``. Only the queue sets ``is_queued``, ``size_class`` (None if no request waits),
    ``cost`` (in seconds, estimated) and ``expires_at``, the time when the request of a `CallQueue`
    has exceeded its budget.
    """

    __slots__ = ("arrived", "cost", "expires_at", "is_closed", "is_queued", "size_class")

    def __init__(self, arrived: float) -> None:
        self.arrived = arrived
        self.is_closed = False
        self.is_queued = False
        self.size_class: int | None = None
        self.cost = self.expires_at = 0.0

    def advance(self) -> None:
        """Take the next step: serve a request, or continue deferred work."""
        raise NotImplementedError

    def resume(self, error: BaseException | None) -> None:
        """Go on after a call that a thread has made, and that raised ``error``."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection."""
        raise NotImplementedError


class RequestQueue(Generic[R]):
    """The queue of one worker; ``budget(request)`` returns how many seconds a request may wait.

    It also has entries with deferred work: a long response, a large body. While requests wait,
    these together get a quarter of the time.

    ``now`` is the monotonic time of the last step, which the event loop sets when it has polled.
    ``backlog_seconds`` is the estimated time that all queued requests will take.
    """

    def __init__(self, budget: Callable[[R], float]) -> None:
        self.now = self._measured_at = monotonic()
        self._budget = budget
        self._requests: deque[QueueEntry] = deque()
        self._deferred: deque[QueueEntry] = deque()
        self._requests_seconds = 0.0  # that requests are served for before more deferred work
        self._costs: dict[int, float] = {}  # mean seconds by size class
        self.backlog_seconds = 0.0
        self._in_flight_seconds = 0.0
        self._has_expired = False

    def __bool__(self) -> bool:
        return bool(self._requests or self._deferred)

    @property
    def has_requests(self) -> bool:
        """True if a request is queued."""
        return bool(self._requests)

    def enqueue(self, entry: QueueEntry, request: R, size: int) -> float | None:
        """Queue a complete request with a body of ``size`` bytes, and return None.

        If its estimated wait, since ``entry.arrived``, exceeds its budget, return that wait in
        seconds instead, and don't queue it.
        """
        wait = self.now - entry.arrived + self.backlog_seconds * _MARGIN
        if wait > _SURELY_IN_TIME and wait > self._budget(request):
            return wait
        # Requests of about the same size cost about the same: one row, or a batch of as many.
        entry.size_class = size_class = size.bit_length()
        entry.cost = cost = self._costs.get(size_class, 0.0)
        self.backlog_seconds += cost
        entry.is_queued = True
        self._requests.append(entry)
        return None

    def defer(self, entry: QueueEntry) -> None:
        """Queue an entry with deferred work, behind the others."""
        entry.is_queued = True
        self._deferred.append(entry)

    def expire(self, entry: QueueEntry, request: R) -> float | None:
        """Return how many seconds a request has waited that is now served, if over its budget."""
        wait = self.now - entry.arrived
        if wait > _SURELY_IN_TIME and wait > self._budget(request):
            self._has_expired = True
            return wait
        return None

    def cancel(self, entry: QueueEntry) -> None:
        """Cancel the request of ``entry``, if there is one; the entry itself stays queued.

        What it does then is not counted as the cost of a request.
        """
        entry.size_class = None
        self.backlog_seconds -= entry.cost
        entry.cost = 0.0

    def serve(self, advance: Callable[[QueueEntry], None], seconds: float) -> None:
        """Call ``advance`` for queued requests and deferred work, for ``seconds``."""
        requests, deferred = self._requests, self._deferred
        until = self.now + seconds
        while self.now <= until:
            before = self.now
            if deferred and not (requests and self._requests_seconds > 0):
                self._advance(advance, deferred.popleft())
                self._requests_seconds = (self.now - before) * _REQUESTS_SHARE
            elif requests:
                self._advance(advance, requests.popleft())
                self._requests_seconds -= self.now - before
            else:
                break
        if not requests:
            self.backlog_seconds = 0.0  # drop what rounding left over

    def _advance(self, advance: Callable[[QueueEntry], None], entry: QueueEntry) -> None:
        """Advance an entry and, if that was a request, learn from how long it took."""
        entry.is_queued = False
        size_class, entry.size_class = entry.size_class, None
        self.backlog_seconds -= entry.cost
        entry.cost = 0.0
        if entry.is_closed:
            return
        before, arrived = self.now, entry.arrived
        self._has_expired = False
        advance(entry)
        self.now = monotonic()
        if size_class is not None and not self._has_expired:
            self._learn(size_class, self.now - before)
            self._in_flight_seconds += self.now - arrived

    def mean_in_flight(self) -> float:
        """Return the mean number of requests that were queued or served since the last call.

        By Little's law: the total time of all requests, per elapsed time.
        """
        seconds, self._in_flight_seconds = self._in_flight_seconds, 0.0
        before, self._measured_at = self._measured_at, self.now
        return seconds / max(self.now - before, 1e-9)

    def _learn(self, size_class: int, seconds: float) -> None:
        mean = self._costs.get(size_class)
        if mean is None:
            self._costs[size_class] = seconds
        else:
            self._costs[size_class] = mean + (min(seconds, mean * _OUTLIER) - mean) * _MEAN_WEIGHT
