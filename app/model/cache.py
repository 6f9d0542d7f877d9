"""The response cache: for callers that send the same row repeatedly.

A cache belongs to one loaded model, so that no answer outlives its version.
"""

from __future__ import annotations

import threading
from collections import OrderedDict


class AnswerCache:
    """The probabilities of the ``size`` most recent rows (least recently used are evicted).

    A row is identified by its bytes: float32, in the order of the features. Thread-safe; two
    threads that look up the same new row at once both compute it.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._answers: OrderedDict[bytes, tuple[float, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, row: bytes) -> tuple[float, ...] | None:
        """Return the answer to ``row`` and mark it as recently used, or return None."""
        with self._lock:
            answer = self._answers.get(row)
            if answer is not None:
                self._answers.move_to_end(row)
        return answer

    def put(self, row: bytes, answer: tuple[float, ...]) -> None:
        """Store an answer, and evict the least recently used one."""
        with self._lock:
            self._answers[row] = answer
            self._answers.move_to_end(row)
            if len(self._answers) > self.size:
                self._answers.popitem(last=False)
