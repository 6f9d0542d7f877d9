"""Counters of a handler, which the metrics show once the model is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import inf
from threading import Lock

MAX_COUNTERS = 100
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,63}")
Count = Callable[[float], None]


class HandlerCounter:
    """A sum that never decreases."""

    def __init__(self, name: str, help: str) -> None:
        self.name, self.help = name, help
        self._lock = Lock()
        self._waiting = 0.0
        self._count: Count | None = None

    def inc(self, amount: float = 1) -> None:
        """Add ``amount``. Raises `ValueError` if it is negative or not finite."""
        if not 0 <= amount < inf:
            raise ValueError(f"a counter can't be increased by {amount}")
        with self._lock:
            if self._count is None:
                self._waiting += amount
                return
        self._count(amount)

    def connect(self, count: Count) -> None:
        """Pass on what was counted, and what will be, to ``count``."""
        with self._lock:
            self._count, waiting, self._waiting = count, self._waiting, 0.0
        if waiting:
            count(waiting)


class Counters:
    """The counters of one handler, by name."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counters: dict[str, HandlerCounter] = {}
        self._counting: Callable[[str], Count] | None = None

    def get(self, name: str, help: str = "") -> HandlerCounter:
        """Return the counter ``name``, the same each time. Raises `ValueError`."""
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"the name of a counter must be at most 64 letters, digits and _, not {name!r}"
            )
        with self._lock:
            counter = self._counters.get(name)
            if counter is None:
                if len(self._counters) >= MAX_COUNTERS:
                    raise ValueError(f"a handler has at most {MAX_COUNTERS} counters")
                counter = self._counters[name] = HandlerCounter(name, help)
                if self._counting is not None:
                    counter.connect(self._counting(name))
            return counter

    def connect(self, counting: Callable[[str], Count]) -> None:
        """Count from now on by what ``counting`` returns for the name of each counter."""
        with self._lock:
            self._counting = counting
            for name, counter in self._counters.items():
                counter.connect(counting(name))
