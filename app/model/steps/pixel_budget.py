"""The budget of pixels that the threads of a process decode at once: each takes some bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class PixelBudget:
    """Lets images wait while those that are being decoded have too many pixels together.

    They are decoded in the order in which they came. Thread-safe.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._taken = 0
        self._waiting: deque[object] = deque()

    @contextmanager
    def take(self, pixels: int, most: int) -> Iterator[None]:
        """Wait until ``pixels`` more are at most ``most``, or the only ones, and take them."""
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(
                    lambda: (
                        self._waiting[0] is turn
                        and (not self._taken or self._taken + pixels <= most)
                    )
                )
                self._taken += pixels
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()  # the next may fit, too
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()
