"""The buffer of a body that is arriving, whose memory is returned to the system.

Byte arrays that many connections grow alternately fragment the heap: it grew to more than twice
what they held, so that a limit on held bytes did not limit memory. So a large body lies in a
mapping of its own, until enough of it has arrived to take the memory for all of it: from then on
the socket writes to where the application reads, and nothing is copied.
"""

from __future__ import annotations

import ctypes
import io
import mmap
from math import inf

_IN_THE_HEAP = 65536
"""The most bytes of what has arrived that stay in the heap, as most bodies do."""
_AHEAD = 2
"""Memory is taken for a whole body once one byte in so many has arrived: what is counted as held is
never more than so many times what a caller has sent."""
_MODERATE, _FURTHER_AHEAD = 1 << 20, 16
"""For a body of at most so many bytes, such as an image, one byte in more is enough: then the first
read is, and the second goes to where the application reads."""

_new_bytes = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)
"""Called with None and a size, it returns bytes that are not set: each will be received. To set
them to zero, as ``bytes(size)`` does, takes nearly half as long as to receive them."""


class BodyBuffer:
    """The bytes of a body that have arrived, without framing; its ``length``, if it is known."""

    __slots__ = ("_enough", "_length", "_map", "_size", "_small", "_view", "_whole")

    def __init__(self, length: int | None = None) -> None:
        self._length = length
        self._enough = inf  # of what has arrived, to take memory for all
        if length is not None:
            self._enough = length / (_AHEAD if length > _MODERATE else _FURTHER_AHEAD)
        self._small = bytearray()
        self._map: mmap.mmap | None = None
        self._whole: io.BytesIO | None = None
        self._view = memoryview(b"")  # of ``_whole``
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def held(self) -> int:
        """The bytes of memory that it takes: all of the body's once that is set aside."""
        return self._size if self._whole is None else len(self._view)

    @property
    def room(self) -> memoryview | None:
        """The memory for the rest of the body, to receive into; None before that is set aside.

        What was written there counts after a call of `fill`.
        """
        return None if self._whole is None else self._view[self._size :]

    def fill(self, size: int) -> None:
        """Count ``size`` bytes that were written to the beginning of `room`."""
        self._size += size

    def append(self, data: bytes | bytearray) -> None:
        """Append ``data``. Raises `OSError` or `MemoryError` if there is no memory."""
        before = self._size
        self._size += len(data)
        if self._whole is None and self._size >= self._enough:
            self._set_aside(before)
        if self._whole is not None:
            self._view[before : self._size] = data
        elif self._size <= _IN_THE_HEAP:
            self._small += data
        else:
            self._append_to_map(before, data)

    def stream(self) -> io.BytesIO:
        """Return a stream of the bytes, which are no longer in the buffer."""
        whole, self._whole = self._whole, None
        if whole is not None:
            self._view.release()
            return whole
        return io.BytesIO(self._small if self._map is None else self._map[: self._size])

    def _append_to_map(self, before: int, data: bytes | bytearray) -> None:
        if self._map is None:
            self._map = mmap.mmap(-1, 4 * self._size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._map[:before] = bytes(self._small)
            self._small.clear()
        elif self._size > len(self._map):
            self._map.resize(2 * self._size)  # which copies nothing; pages come as they are used
        self._map[before : self._size] = data

    def _set_aside(self, before: int) -> None:
        """Take the memory for the whole body, and move there the ``before`` bytes that are here."""
        # Which shares the bytes object: nobody else has it, and so it may be written to.
        self._whole = io.BytesIO(_new_bytes(None, self._length or 0))
        self._view = self._whole.getbuffer()
        self._view[:before] = self._small if self._map is None else self._map[:before]
        self._small.clear()
        self._map = None
