"""How much each worker has to do, in memory that all workers of a master share.

Workers accept from one socket, and the kernel gives what comes to whoever is awake: of sixteen
connections that arrive together one worker may take all, and keep them for as long as they last.
And a worker that refuses requests is done with them first, so that those who lead them there come
back to it first, while another has nothing to do.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from time import monotonic

_SLOTS = 64
"""Of more workers than this, some share a slot, which makes their shares less even."""
_SLOT = struct.Struct("=ddq")
_STALE_SECONDS = 2.5
"""A worker that has not told its number for so long doesn't count: it may hang, or be gone."""


_ALIKE_SECONDS = 0.01
"""Lines that differ by less are as long as each other: then connections are counted."""


class Shares:
    """The table; make it before the fork. Each worker tells and asks by a number of its own.

    ``ahead`` is how many seconds who comes now would wait for a turn.
    """

    def __init__(self) -> None:
        self._table = mmap.mmap(-1, _SLOTS * _SLOT.size)

    def tell(self, worker: int, ahead: float, connections: int) -> None:
        """Tell what ``worker`` has to do now; do so every second or two."""
        _SLOT.pack_into(self._table, _place(worker), monotonic(), ahead, connections)

    def leave(self, worker: int) -> None:
        """Have ``worker`` count no more: it stops accepting."""
        _SLOT.pack_into(self._table, _place(worker), 0.0, 0.0, 0)

    def has_more(self, worker: int, ahead: float, connections: int) -> bool:
        """Tell whether another that is there to accept has less to do than ``worker``."""
        own = int(ahead / _ALIKE_SECONDS)
        for others_ahead, others in self._others(worker):
            line = int(others_ahead / _ALIKE_SECONDS)
            # Of many, some more don't matter; to wait for the other with each one would.
            if line < own or (line == own and others + others // 4 < connections):
                return True
        return False

    def is_behind(self, worker: int, ahead: float) -> bool:
        """Tell whether requests would have their turn much sooner at another than ``worker``."""
        return any(others < ahead / 2 - _ALIKE_SECONDS for others, _ in self._others(worker))

    def has_others(self, worker: int) -> bool:
        """Tell whether another than ``worker`` is there to accept."""
        return any(True for _ in self._others(worker))

    def _others(self, worker: int) -> Iterator[tuple[float, int]]:
        """Give what each other worker that counts has to do."""
        fresh = monotonic() - _STALE_SECONDS
        own = worker % _SLOTS
        for slot, (told, ahead, connections) in enumerate(_SLOT.iter_unpack(self._table)):
            if told > fresh and slot != own:
                yield ahead, connections


def _place(worker: int) -> int:
    return worker % _SLOTS * _SLOT.size
