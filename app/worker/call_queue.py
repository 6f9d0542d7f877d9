"""The queue of calls that take long: they wait for a thread of the `CallPool`, and not for the
loop.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import monotonic

from .pool import Call, CallPool
from .request_queue import QueueEntry, R, RequestQueue

_LOOK_SECONDS = 0.02
"""Seconds between two searches of waiting calls for those whose budget is exceeded."""


class CallQueue(RequestQueue[R]):
    """A `RequestQueue` whose requests the threads of ``pool`` serve, several beside each other.

    ``advance`` begins with the request of an entry, whose turn it is or whose budget is exceeded:
    the former calls `start`.

    The cost of a call is its share of the time: while n calls run, a second is the n-th part of one
    for each. So the costs of what waits add up to the time that it takes, however many of the
    threads run truly beside each other. It is learnt while all threads are busy, as they are when
    requests wait: fewer calls may take a larger share, where there are cores for more.
    """

    def __init__(
        self, budget: Callable[[R], float], pool: CallPool, advance: Callable[[QueueEntry], None]
    ) -> None:
        super().__init__(budget)
        self._pool = pool
        self._begin = advance
        self._shared_seconds = 0.0  # a clock: of each second, the share of one call
        self._size_class: int | None = None  # of the request that `advance` begins with
        self._expires_at = inf  # none that waits exceeds its budget before this

    @property
    def is_busy(self) -> bool:
        """True if a call waits or runs."""
        return bool(self._requests or self._pool.running)

    def seconds_to_wait(self, most: float) -> float:
        """Return how many seconds, at most ``most``, the loop may wait until `step` is due."""
        if not self._requests or self._expires_at == inf:
            return most
        return min(most, max(0.0, self._expires_at - monotonic()))

    def enqueue(self, entry: QueueEntry, request: R, size: int) -> float | None:
        """Queue a request as `RequestQueue.enqueue` does; `dispatch` begins with it."""
        self._tick()
        wait = super().enqueue(entry, request, size)
        if wait is None:
            entry.expires_at = entry.arrived + self._budget(request)
            self._expires_at = min(self._expires_at, entry.expires_at)
        return wait

    def cancel(self, entry: QueueEntry) -> None:
        """Remove the request of ``entry``, if it waits; one that runs is not stopped."""
        if entry.size_class is not None:
            self._tick()
            self._requests.remove(entry)
            entry.is_queued = False
        super().cancel(entry)

    def start(self, entry: QueueEntry, work: Callable[[], None]) -> None:
        """Do ``work`` in a thread; ``entry.resume`` is called by `step` when it has ended."""
        self._pool.start(Call(entry, work, self._size_class, self._shared_seconds))

    def step(self, resume: Callable[[QueueEntry, BaseException | None], None]) -> None:
        """Call ``resume`` for the calls that have ended, and begin with others in their place."""
        is_full = not self._pool.has_room
        self._tick()
        for call in self._pool.take_ended():
            if is_full and call.size_class is not None:
                self._learn(call.size_class, self._shared_seconds - call.shared_at)
            self.dispatch()  # first, so that the thread is not idle meanwhile
            error, call.error = call.error, None  # its traceback refers to the call
            resume(call.entry, error)
        self._expire_waiting()

    def dispatch(self) -> None:
        """Begin with requests that wait, the first that came first, while threads are free."""
        if self._requests:
            self._tick()
        while self._requests and self._pool.has_room:
            self._hand_over(self._requests.popleft())

    def mean_in_flight(self) -> float:
        self._tick()
        return super().mean_in_flight()

    def _expire_waiting(self) -> None:
        """Begin with the requests whose budget is exceeded, though no thread is free for them:
        they are rejected.
        """
        if self.now <= self._expires_at:
            return
        waiting: list[QueueEntry] = []
        overdue: list[QueueEntry] = []
        for entry in self._requests:
            (overdue if entry.expires_at < self.now else waiting).append(entry)
        self._requests.clear()
        self._requests.extend(waiting)
        soonest = min((entry.expires_at for entry in waiting), default=inf)
        self._expires_at = max(soonest, self.now + _LOOK_SECONDS)
        for entry in overdue:
            self._hand_over(entry)

    def _hand_over(self, entry: QueueEntry) -> None:
        entry.is_queued = False
        self._size_class, entry.size_class = entry.size_class, None
        self.backlog_seconds -= entry.cost
        if not self._requests:
            self.backlog_seconds = 0.0  # drop what rounding left over
        entry.cost = 0.0
        self._begin(entry)

    def _tick(self) -> None:
        """Count the time since the last call of this, in which nothing has changed."""
        now = monotonic()
        passed, self.now = now - self.now, now
        running = self._pool.running
        self._in_flight_seconds += passed * (running + len(self._requests))
        if running:
            self._shared_seconds += passed / running
