"""Answers that are remembered: for callers that send the same row again and again.

A cache belongs to one loaded model, so that no answer outlives the version that gave it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict


class AnswerCache:
    """The probabilities of the ``size`` rows that were asked for last (least recently used).

    A row is known by its bytes: float32, in the order of the features. Safe to use from several
    threads; two that ask for the same new row at once both compute it.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._answers: OrderedDict[bytes, tuple[float, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, row: bytes) -> tuple[float, ...] | None:
        """Return the answer to ``row`` and note that it was asked for, or None."""
        with self._lock:
            answer = self._answers.get(row)
            if answer is not None:
                self._answers.move_to_end(row)
        return answer

    def put(self, row: bytes, answer: tuple[float, ...]) -> None:
        """Remember an answer, and forget the one that was not asked for the longest."""
        with self._lock:
            self._answers[row] = answer
            self._answers.move_to_end(row)
            if len(self._answers) > self.size:
                self._answers.popitem(last=False)
