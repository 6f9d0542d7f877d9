"""What one run of a network may take while it serves: callers choose its inputs, and some networks
do as much as their inputs say (loops, ranges, repeats; attention over a sequence).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf

from .errors import RunTooLarge

# ONNX Runtime's message of an operation within another breaks off where it had no memory, either.
_NO_MEMORY = re.compile(
    r"bad.?alloc|MemoryError|cannot allocate memory|can't allocate memory|not enough memory"
    r"|failed to allocate|unable to allocate|out of memory|can't start new thread"
    r"|Status Message: Non-zero status\Z",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class RunLimits:
    """The settings ``limits.run_seconds`` and ``limits.run_memory_mb``; 0 MiB is no limit.

    A runtime stops what exceeds the seconds (`app.model.run_watch`). The process is what has a
    limit of memory (`app.model.memory_limit`): a runtime only reports that it was met.
    """

    seconds: float = inf
    memory_mb: int = 0

    def check_memory(self, error: Exception) -> None:
        """Raise `RunTooLarge` if ``error``, which a run raised, says that there is no memory."""
        if isinstance(error, MemoryError) or says_no_memory(str(error)):
            raise RunTooLarge(self.memory_mb) from error


UNLIMITED = RunLimits()


def says_no_memory(message: str) -> bool:
    """Return True if a library's message says that there is no memory: each has its own words."""
    return _NO_MEMORY.search(message) is not None
