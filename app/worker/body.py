"""The buffer of a body that is arriving, whose memory is returned to the system.

Byte arrays that many connections grow alternately fragment the heap: it grew to more than twice
what they held, so that a limit on held bytes did not limit memory.
"""

from __future__ import annotations

import mmap

_IN_THE_HEAP = 65536
"""Bodies of up to this many bytes, as most are, stay in the heap."""


class BodyBuffer:
    """The bytes of a body that have arrived, without framing."""

    __slots__ = ("_map", "_size", "_small")

    def __init__(self) -> None:
        self._small = bytearray()
        self._map: mmap.mmap | None = None
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes | bytearray) -> None:
        """Append ``data``. Raises `OSError` if there is no memory."""
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
        """Return a copy of the bytes."""
        return bytes(self._small) if self._map is None else self._map[: self._size]
