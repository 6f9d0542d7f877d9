"""The queues of calls that take long: they wait for a thread of the `CallPool`, and not for the
loop.

Each model has a queue of its own, and they are served in turn: the calls of one don't wait for all
those of another, however long these take.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Generic

from .pool import Call, CallPool
from .request_queue import QueueEntry, R, RequestQueue

_LOOK_SECONDS = 0.02
"""Seconds between two searches of waiting calls for those whose budget is exceeded."""


class CallQueue(RequestQueue[R]):
    """A `RequestQueue` whose requests are served in threads, several beside each other.

    The cost of a call is its share of the time: while n calls of the queue run, a second is the
    n-th part of one for each. So the costs of what waits add up to the time that it takes, however
    many threads the queue gets, and however many of them run truly beside each other. It is learnt
    while all threads are busy or requests wait: fewer calls may take a larger share, where there
    are cores for more.
    """

    def __init__(self, budget: Callable[[R], float]) -> None:
        super().__init__(budget)
        self.running = 0
        self.expires_at = inf  # none that waits exceeds its budget before this
        self._shared_seconds = 0.0  # a clock: of each second, the share of one call

    @property
    def first_arrived(self) -> float:
        """When the first arrived of those that wait, of which there is one."""
        return self._requests[0].arrived

    def enqueue(self, entry: QueueEntry, request: R, size: int) -> float | None:
        """Queue a request as `RequestQueue.enqueue` does; `CallQueues.dispatch` begins with it."""
        self.tick()
        wait = super().enqueue(entry, request, size)
        if wait is None:
            entry.expires_at = entry.arrived + self._budget(request)
            self.expires_at = min(self.expires_at, entry.expires_at)
        return wait

    def cancel(self, entry: QueueEntry) -> None:
        """Remove the request of ``entry``, if it waits; one that runs is not stopped."""
        if entry.size_class is not None:
            self.tick()
            if entry.is_queued:
                self._requests.remove(entry)
            entry.is_queued = False
        super().cancel(entry)

    def take_first(self) -> QueueEntry:
        """Remove the first of those that wait."""
        self.tick()
        return self._requests.popleft()

    def take_overdue(self) -> list[QueueEntry]:
        """Remove those that wait and whose budget is exceeded."""
        self.tick()
        if self.now <= self.expires_at:
            return []
        waiting: list[QueueEntry] = []
        overdue: list[QueueEntry] = []
        for entry in self._requests:
            (overdue if entry.expires_at < self.now else waiting).append(entry)
        for entry in overdue:
            entry.is_queued = False
        self._requests.clear()
        self._requests.extend(waiting)
        soonest = min((entry.expires_at for entry in waiting), default=inf)
        self.expires_at = max(soonest, self.now + _LOOK_SECONDS)
        return overdue

    def settle(self, entry: QueueEntry) -> int | None:
        """Count ``entry``, which was removed, as waiting no more; return its size class."""
        entry.is_queued = False
        size_class, entry.size_class = entry.size_class, None
        self.backlog_seconds -= entry.cost
        if not self._requests:
            self.backlog_seconds = 0.0  # drop what rounding left over
        entry.cost = 0.0
        return size_class

    def begin(self) -> float:
        """Count a call that begins; return the time of the clock that `end` takes."""
        self.tick()
        self.running += 1
        return self._shared_seconds

    def end(self, call: Call, *, learns: bool) -> None:
        """Count a call that has ended, and learn what it cost if it ran beside others."""
        self.tick()
        self.running -= 1
        if call.size_class is not None and (learns or self._requests):
            self._learn(call.size_class, self._shared_seconds - call.shared_at)

    def mean_in_flight(self) -> float:
        self.tick()
        return super().mean_in_flight()

    def tick(self) -> None:
        """Count the time since the last call of this, in which nothing of the queue has changed."""
        now = monotonic()
        passed, self.now = now - self.now, now
        self._in_flight_seconds += passed * (self.running + len(self._requests))
        if self.running:
            self._shared_seconds += passed / self.running


class CallQueues(Generic[R]):
    """The queues whose requests the threads of ``pool`` serve.

    A thread takes the request of the queue of which the fewest calls run. The last one is kept for
    a queue of which none runs, if there is such a queue: its next request begins at once, however
    long the calls of the others take.

    ``advance`` begins with the request of an entry, whose turn it is or whose budget is exceeded:
    the former calls `start`.
    """

    def __init__(
        self, budget: Callable[[R], float], pool: CallPool, advance: Callable[[QueueEntry], None]
    ) -> None:
        self._budget = budget
        self._pool = pool
        self._advance = advance
        self._queues: dict[str, CallQueue[R]] = {}
        self._running: dict[Call, CallQueue[R]] = {}
        self._begun: tuple[CallQueue[R], int | None] | None = None  # what `advance` begins with

    def __getitem__(self, name: str) -> CallQueue[R]:
        """Return the queue ``name``, which is made if it is new: there must be few names."""
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = CallQueue(self._budget)
        return queue

    @property
    def is_busy(self) -> bool:
        """True if a call waits or runs."""
        return bool(self._pool.running or any(self._queues.values()))

    @property
    def backlog_seconds(self) -> float:
        """The estimated time that all waiting requests will take."""
        return sum(queue.backlog_seconds for queue in self._queues.values())

    def seconds_to_wait(self, most: float) -> float:
        """Return how many seconds, at most ``most``, the loop may wait until `step` is due."""
        soonest = min((queue.expires_at for queue in self._waiting()), default=inf)
        return most if soonest == inf else min(most, max(0.0, soonest - monotonic()))

    def start(self, entry: QueueEntry, work: Callable[[], None]) -> None:
        """Do ``work`` in a thread; ``entry.resume`` is called by `step` when it has ended."""
        assert self._begun is not None
        queue, size_class = self._begun
        call = Call(entry, work, size_class, queue.begin())
        self._running[call] = queue
        self._pool.start(call)

    def step(self, resume: Callable[[QueueEntry, BaseException | None], None]) -> None:
        """Call ``resume`` for the calls that have ended, and begin with others in their place."""
        is_full = not self._pool.has_room
        for call in self._pool.take_ended():
            self._running.pop(call).end(call, learns=is_full)
            self.dispatch()  # first, so that the thread is not idle meanwhile
            error, call.error = call.error, None  # its traceback refers to the call
            resume(call.entry, error)
        for queue in self._waiting():
            for entry in queue.take_overdue():  # though no thread is free: they are rejected
                self._hand_over(queue, entry)

    def dispatch(self) -> None:
        """Begin with requests that wait, while threads are free for them."""
        while (queue := self._next()) is not None:
            self._hand_over(queue, queue.take_first())

    def mean_in_flight(self) -> float:
        """Return the mean number of requests that waited or ran since the last call."""
        return sum(queue.mean_in_flight() for queue in self._queues.values())

    def _waiting(self) -> list[CallQueue[R]]:
        return [queue for queue in self._queues.values() if queue]

    def _next(self) -> CallQueue[R] | None:
        """Return the queue that gets a thread now, if there is one for any."""
        free = self._pool.max_threads - self._pool.running
        waiting = self._waiting() if free > 0 else []
        if not waiting:
            return None
        queue = min(waiting, key=lambda each: (each.running, each.first_arrived))
        if free == 1 and queue.running and not all(each.running for each in self._queues.values()):
            return None
        return queue

    def _hand_over(self, queue: CallQueue[R], entry: QueueEntry) -> None:
        size_class = queue.settle(entry)
        if size_class is not None:  # else it was cancelled since it was taken
            self._begun = queue, size_class
            self._advance(entry)
