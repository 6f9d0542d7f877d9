"""The response cache: for callers that send the same row repeatedly.

A cache belongs to one loaded model, so that no answer outlives its version.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any


class AnswerCache:
    """The answers to the ``size`` most recent rows (least recently used are evicted).

    A row is identified by a key that only the same row has (`FeatureEncoder.key`). Thread-safe; two
    threads that look up the same new row at once both compute it.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._answers: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, row: Hashable) -> Any:
        """Return the answer to ``row`` and mark it as recently used, or return None."""
        with self._lock:
            answer = self._answers.get(row)
            if answer is not None:
                self._answers.move_to_end(row)
        return answer

    def put(self, row: Hashable, answer: Any) -> None:
        """Store an answer, and evict the least recently used one."""
        with self._lock:
            self._answers[row] = answer
            self._answers.move_to_end(row)
            if len(self._answers) > self.size:
                self._answers.popitem(last=False)
