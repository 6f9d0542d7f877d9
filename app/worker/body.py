"""Memory for a body that arrives: what it takes is what has arrived, and all of it goes back.

Arrays that many connections grow in turn leave the heap full of holes: it was more than twice as
large as what they held, so that a bound on that was none on memory.
"""

from __future__ import annotations

import mmap

_IN_THE_HEAP = 65536
"""Up to so many bytes a body is no matter; most are whole before."""


class BodyBuffer:
    """Collects the bytes of a body; it knows nothing of framing."""

    __slots__ = ("_map", "_size", "_small")

    def __init__(self) -> None:
        self._small = bytearray()
        self._map: mmap.mmap | None = None
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes | bytearray) -> None:
        """Add ``data`` at the end. Raises `OSError` if there is no memory."""
        before = self._size
        self._size += len(data)
        if self._size <= _IN_THE_HEAP:
            self._small += data
            return
        if self._map is None:
            self._map = mmap.mmap(-1, 4 * self._size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._map[:before] = bytes(self._small)
            self._small.clear()
        elif self._size > len(self._map):
            self._map.resize(2 * self._size)  # which copies nothing; pages come as they are used
        self._map[before : self._size] = data

    def getvalue(self) -> bytes:
        """Return the bytes so far, as one copy."""
        return bytes(self._small) if self._map is None else self._map[: self._size]
