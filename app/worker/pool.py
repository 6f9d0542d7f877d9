"""Threads for calls that take long: the loop hands a call over, and is woken when it has ended.

A thread makes the call and nothing else: what comes before and after it, the loop does itself. The
pool knows nothing of requests.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from time import monotonic

from .request_queue import QueueEntry

_SWITCH_SECONDS = 0.0005
"""Seconds for which a thread that computes in Python keeps the interpreter's lock. The loop
asks for it after each system call: by the default of 5 ms, a small request would take 20."""


class Call:
    """A call in a thread: ``work`` is called there, and ``error`` is what it raised.

    ``entry`` is whose request it is, ``size_class`` that of the request, and ``began_at`` and
    ``shared_at`` when it began, by the clocks of the `CallQueue`.
    """

    __slots__ = ("began_at", "entry", "error", "shared_at", "size_class", "work")

    def __init__(
        self, entry: QueueEntry, work: Callable[[], None], size_class: int | None, shared_at: float
    ) -> None:
        self.entry = entry
        self.work = work
        self.size_class = size_class
        self.shared_at = shared_at
        self.began_at = monotonic()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do the work; never raises."""
        try:
            self.work()
        except BaseException as error:  # also SystemExit: it is the application's
            self.error = error


class CallPool:
    """At most ``max_threads`` threads, started when there are calls for them: none outlives a fork.

    ``wake`` is called in the thread whenever a call has ended; it must not raise.
    """

    def __init__(self, max_threads: int, wake: Callable[[], None]) -> None:
        self.max_threads = max_threads
        self._wake = wake
        self._threads: list[Thread] = []
        self._handed_over: SimpleQueue[Call] = SimpleQueue()
        self._ended: deque[Call] = deque()
        self._running: dict[Call, None] = {}  # in the order in which they began

    @property
    def running(self) -> int:
        """The number of calls that have begun, and were not taken by `take_ended` yet."""
        return len(self._running)

    @property
    def has_room(self) -> bool:
        """True if a call would begin at once."""
        return len(self._running) < self.max_threads

    @property
    def oldest_at(self) -> float | None:
        """When the call began that has been running longest; None if none runs."""
        return next((call.began_at for call in self._running), None)

    def start(self, call: Call) -> None:
        """Make ``call`` in a thread; in this one, if none can be started."""
        self._running[call] = None
        if len(self._running) > len(self._threads):
            with suppress(RuntimeError):  # too many threads: those that there are have to do
                self._add_thread()
        if self._threads:
            self._handed_over.put(call)
        else:
            self._make(call)

    def take_ended(self) -> Iterator[Call]:
        """Yield the calls that have ended, each once."""
        while self._ended:
            call = self._ended.popleft()
            del self._running[call]
            yield call

    def _add_thread(self) -> None:
        if not self._threads:
            sys.setswitchinterval(_SWITCH_SECONDS)
        # A daemon: a call that hangs must not keep the process from ending.
        thread = Thread(target=self._go, name=f"lantern-call-{len(self._threads)}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _go(self) -> None:
        while True:
            self._make(self._handed_over.get())

    def _make(self, call: Call) -> None:
        call.run()
        self._ended.append(call)
        self._wake()
