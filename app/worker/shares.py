"""How many connections each worker has, in memory that all workers of a master share.

Workers accept from one socket, and the kernel gives what comes to whoever is awake: of sixteen
connections that arrive together one worker may take all, and keep them for as long as they last.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from time import monotonic

_SLOTS = 64
"""Of more workers than this, some share a slot, which makes their shares less even."""
_SLOT = struct.Struct("=dq")
_STALE_SECONDS = 2.5
"""A worker that has not told its number for so long doesn't count: it may hang, or be gone."""


class Shares:
    """The table; make it before the fork. Each worker tells and asks by a number of its own."""

    def __init__(self) -> None:
        self._table = mmap.mmap(-1, _SLOTS * _SLOT.size)

    def tell(self, worker: int, connections: int) -> None:
        """Tell how many connections ``worker`` has now; do so every second or two."""
        _SLOT.pack_into(self._table, worker % _SLOTS * _SLOT.size, monotonic(), connections)

    def leave(self, worker: int) -> None:
        """Have ``worker`` count no more: it stops accepting."""
        _SLOT.pack_into(self._table, worker % _SLOTS * _SLOT.size, 0.0, 0)

    def has_more(self, worker: int, connections: int) -> bool:
        """Tell whether ``worker`` has more connections than another that is there to accept."""
        return any(others < connections for others in self._others(worker))

    def has_others(self, worker: int) -> bool:
        """Tell whether another worker than ``worker`` is there to accept."""
        return any(True for _ in self._others(worker))

    def _others(self, worker: int) -> Iterator[int]:
        """Give the connections of each other worker that counts."""
        fresh = monotonic() - _STALE_SECONDS
        own = worker % _SLOTS
        for slot, (told, connections) in enumerate(_SLOT.iter_unpack(self._table)):
            if told > fresh and slot != own:
                yield connections
