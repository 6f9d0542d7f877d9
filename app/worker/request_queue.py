"""The queue of a worker: complete requests wait in one line, first come, first served.

The queue estimates how long a new request would wait, from what requests of its size have taken so
far. A request that would wait for longer than it may is not queued, and one that has waited for
longer is reported when it is served: its connection has it refused at once, which costs little.
Thus no work is spent on requests that are too late, and those that are served are served in time,
however many arrive. The queue knows nothing of sockets or HTTP, and never looks into a request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

R = TypeVar("R")

_SURELY_IN_TIME = 0.001
"""Seconds. No budget is shorter, so most requests need not be asked for theirs."""
_MEAN_WEIGHT = 0.1
"""The weight of the last request in the moving mean of its size class."""
_OUTLIER = 4.0
"""A request counts as at most this many times the mean: one that was held up says little of the
next."""
_MARGIN = 1.5
"""The estimate is raised by this factor: a request that is queued and then refused waited in vain.
"""
_REQUESTS_SHARE = 3.0
"""After deferred work, waiting requests are served for this many times as long before the next."""


class QueueEntry:
    """What stands in a `RequestQueue`, and the queue's notes on it.

    ``arrived`` is when the last bytes of its request came, by the monotonic clock, and
    ``is_closed`` is True once nobody waits any more: the subclass alone sets both. ``is_queued``,
    ``size_class`` (None if no request waits) and ``cost`` (estimated seconds): the queue alone.
    """

    __slots__ = ("arrived", "cost", "is_closed", "is_queued", "size_class")

    def __init__(self, arrived: float) -> None:
        self.arrived = arrived
        self.is_closed = False
        self.is_queued = False
        self.size_class: int | None = None
        self.cost = 0.0

    def advance(self) -> None:
        """Do the next step of what the entry stands for."""
        raise NotImplementedError

    def close(self) -> None:
        """Abandon what the entry stands for."""
        raise NotImplementedError


class RequestQueue(Generic[R]):
    """The queue of one worker; ``budget(request)`` returns the seconds a request may wait.

    Beside the requests it holds entries with deferred work: a long response, a large body. While
    requests wait, these have a quarter of the time together, one after the other.

    ``now`` is the monotonic time as of the last step; ``backlog_seconds`` is the estimated time
    that all waiting requests will take.
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
        """True if a request waits."""
        return bool(self._requests)

    def enqueue(self, entry: QueueEntry, request: R, size: int) -> float | None:
        """Queue a complete request with a body of ``size`` bytes, and return None.

        If it would wait for longer than it may, return these seconds instead: it is not queued,
        and is to be refused now. Its wait began at ``entry.arrived``.
        """
        wait = self.now - entry.arrived + self.backlog_seconds * _MARGIN
        if wait > _SURELY_IN_TIME and wait > self._budget(request):
            return wait
        # Requests of a size are alike enough: one row, or a batch of about as many rows.
        entry.size_class = size_class = size.bit_length()
        entry.cost = cost = self._costs.get(size_class, 0.0)
        self.backlog_seconds += cost
        entry.is_queued = True
        self._requests.append(entry)
        return None

    def defer(self, entry: QueueEntry) -> None:
        """Queue an entry that has more to do, behind the others with deferred work."""
        entry.is_queued = True
        self._deferred.append(entry)

    def expire(self, entry: QueueEntry, request: R) -> float | None:
        """Return how many seconds a request has waited that is about to be served, if too long."""
        wait = self.now - entry.arrived
        if wait > _SURELY_IN_TIME and wait > self._budget(request):
            self._has_expired = True
            return wait
        return None

    def cancel(self, entry: QueueEntry) -> None:
        """Forget the request of ``entry``, if one is queued; the entry itself keeps its place.

        What it does there says nothing of what requests of that size cost.
        """
        entry.size_class = None
        self.backlog_seconds -= entry.cost
        entry.cost = 0.0

    def serve(self, advance: Callable[[QueueEntry], None], seconds: float) -> None:
        """Serve waiting requests and deferred work for ``seconds``, by ``advance``."""
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
        """Advance an entry, and learn how long its request took, if it was one."""
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
        """Return the mean number of requests that waited or were served since the last call.

        By Little's law: the seconds that requests stayed, per second that went by.
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
