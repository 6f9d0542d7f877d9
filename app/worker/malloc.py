"""Settings of malloc: memory that a worker frees is kept for the next request."""

from __future__ import annotations

import contextlib
import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_ARENAS = 2
"""Each keeps its freed memory for itself. Those of a loop, and of the threads beside it, which
allocate under the interpreter's lock or little at once."""
_KEPT_BYTES = 32 << 20
_OWN_MAPPING_BYTES = 8 << 20
"""Allocations of this size and above are returned when they are freed. Smaller are those for
10,000 rows of the bundled model (ONNX Runtime's largest have 2.6 MB), and for a part of a response.
"""


def keep_freed_memory() -> None:
    """Make glibc keep up to 32 MiB of freed memory, twice if there are threads (mallopt(3)); do
    nothing on another libc.

    A batch of 10,000 rows takes some 10 MiB for a moment. By default, glibc returns most of them to
    the kernel each time, and getting them back, page by page, was a third of the batch's time.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
        mallopt(_M_ARENA_MAX, _ARENAS)


def release_freed_memory() -> None:
    """Return all freed memory but 32 MiB to the kernel (malloc_trim(3)).

    That includes what lies between memory in use. It takes 35 ms for 250 MiB.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(_KEPT_BYTES)
