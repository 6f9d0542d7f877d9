"""The limit of a worker's memory, so that what a run takes too much is refused and not killed for.

Without one, the kernel ends the worker, or another process of the machine, when memory is short.
With it, the allocation fails, and ONNX Runtime and torch raise an exception. The limit is the
process's (RLIMIT_DATA), because a run takes memory in many places: its arena, strings, threads.
"""

from __future__ import annotations

import re
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .isolation import ProcessLimits

_STATUS = Path("/proc/self/status")
_DATA = re.compile(r"^VmData:\s+(\d+) kB", re.MULTILINE)


class MemoryLimit:
    """Limits what this process takes in addition to what its models took when they were loaded.

    It may take ``memory_mb`` MiB; while a model is loaded, also what ``loads`` allows for checking
    its files. Nothing is limited where the system doesn't say what a process has.
    """

    def __init__(self, memory_mb: int, loads: ProcessLimits) -> None:
        self._bytes = memory_mb << 20
        self._loads = loads
        self._lock = threading.Lock()

    @contextmanager
    def loading(self, path: Path) -> Iterator[None]:
        """Return a context in which the model in ``path`` is loaded; then the limit is set anew."""
        with self._lock:
            try:
                _limit(self._bytes + self._loads.memory_bytes(path))
                yield
            finally:
                _limit(self._bytes)


def _limit(more: int) -> None:
    """Limit the data of this process to ``more`` bytes than it has now."""
    try:
        found = _DATA.search(_STATUS.read_text(encoding="ascii"))
    except OSError:
        return
    if found is None:
        return
    # The data, not the address space: libraries reserve far more of that than they use.
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = int(found[1]) * 1024 + more
    soft = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, most))
