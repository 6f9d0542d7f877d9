"""The load of each worker, in memory that all workers of a master share.

Workers accept from one socket, and the kernel gives new connections to any worker that is awake: of
sixteen that arrive together, one worker may accept all and keep them. And a worker that rejects
requests is the first to be done with them, so that load balancers and clients return to it while
another worker is idle.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from time import monotonic

_SLOTS = 64
"""If there are more workers, some share a slot, and the balance is less even."""
_SLOT = struct.Struct("=ddq")
_STALE_SECONDS = 2.5
"""A worker that has published nothing for this long is ignored: it hangs or has exited."""
_BACKLOG_STEP_SECONDS = 0.01
"""Backlogs that differ by less are equal; then the numbers of connections are compared."""


class LoadTable:
    """The table of all workers; create it before the fork.

    ``worker`` is a number of its own for each worker. ``backlog_seconds`` is how long a request
    that arrives now would wait in its queue.
    """

    def __init__(self) -> None:
        self._table = mmap.mmap(-1, _SLOTS * _SLOT.size)

    def publish(self, worker: int, backlog_seconds: float, connections: int) -> None:
        """Publish the load of ``worker``. Call this at least every two seconds."""
        _SLOT.pack_into(self._table, _offset(worker), monotonic(), backlog_seconds, connections)

    def withdraw(self, worker: int) -> None:
        """Remove ``worker`` from the table: it accepts no more connections."""
        _SLOT.pack_into(self._table, _offset(worker), 0.0, 0.0, 0)

    def should_yield(self, worker: int, backlog_seconds: float, connections: int) -> bool:
        """Return True if another worker that accepts connections is less loaded than ``worker``."""
        own = int(backlog_seconds / _BACKLOG_STEP_SECONDS)
        for peer_seconds, peer_connections in self._peers(worker):
            peer = int(peer_seconds / _BACKLOG_STEP_SECONDS)
            # Among many connections a few more don't matter, and yielding to each other would.
            if peer < own or (
                peer == own and peer_connections + peer_connections // 4 < connections
            ):
                return True
        return False

    def is_behind(self, worker: int, backlog_seconds: float) -> bool:
        """Return True if another worker than ``worker`` would serve a request much sooner."""
        limit = backlog_seconds / 2 - _BACKLOG_STEP_SECONDS
        return any(peer_seconds < limit for peer_seconds, _ in self._peers(worker))

    def has_peers(self, worker: int) -> bool:
        """Return True if a worker other than ``worker`` accepts connections."""
        return any(True for _ in self._peers(worker))

    def _peers(self, worker: int) -> Iterator[tuple[float, int]]:
        """Yield the backlog in seconds and the connections of every other worker that is alive."""
        fresh = monotonic() - _STALE_SECONDS
        own = worker % _SLOTS
        for slot, (published, seconds, connections) in enumerate(_SLOT.iter_unpack(self._table)):
            if published > fresh and slot != own:
                yield seconds, connections


def _offset(worker: int) -> int:
    return worker % _SLOTS * _SLOT.size
