"""Writing: the parts of responses go out as fast as the client reads them, and never faster.

The writer holds what is still to be sent, and measures how long the client keeps it waiting. It
knows nothing of requests, of queues or of what becomes of a client that is too slow.
"""

from __future__ import annotations

import socket
from collections import deque
from itertools import islice
from time import monotonic

from .response import Part

_MAX_PARTS = 64
"""Parts that are sent at once."""


class ResponseWriter:
    """Writes to ``sock``, without blocking, what is appended to ``parts``.

    ``blocked_bytes`` is how much memory the client keeps waiting: all that is left, with what was
    sent of its first part; 0 unless the socket took less than there was.
    """

    __slots__ = ("_blocked_at", "_sock", "_taken", "_waited", "blocked_bytes", "parts")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.parts: deque[Part] = deque()
        self.blocked_bytes = 0
        self._blocked_at = 0.0  # since when it waits
        self._waited = 0.0  # how long the client has kept this response waiting,
        self._taken = 0  # and what it took after it had

    def flush(self) -> bool:
        """Send what the socket takes; return True if that was all.

        Raises `OSError` if the client is gone.
        """
        parts = self.parts
        taken = 0
        try:
            while parts:
                if len(parts) == 1:
                    sent = self._sock.send(parts[0])
                else:
                    sent = self._sock.sendmsg(list(islice(parts, _MAX_PARTS)))
                taken += sent
                while parts and sent >= len(parts[0]):
                    sent -= len(parts.popleft())
                if sent:
                    parts[0] = memoryview(parts[0])[sent:]
        except BlockingIOError:
            self._begin_waiting(taken)
            return False
        if self.blocked_bytes:
            self._end_waiting(taken)
        return True

    def clear(self) -> None:
        """Discard what is left."""
        self.parts.clear()
        self.blocked_bytes = 0

    def seconds_behind(self, min_rate: int) -> float:
        """Return how much longer this response has waited than reading it takes at ``min_rate``.

        ``min_rate`` is in bytes a second. Reading a little now and then does not start it afresh.
        """
        return max(0.0, self._waited - self._taken / min_rate)

    def begin_response(self) -> None:
        """Measure afresh: what the client read of the response before says nothing of the next."""
        self._waited, self._taken = 0.0, 0

    def _begin_waiting(self, taken: int) -> None:
        """Start to measure the wait: the socket is full, after it took ``taken`` bytes."""
        if self.blocked_bytes:
            self._end_waiting(taken)
        self._blocked_at = monotonic()
        first = self.parts[0]
        self.blocked_bytes = sum(map(len, self.parts))
        if isinstance(first, memoryview):
            self.blocked_bytes += memoryview(first.obj).nbytes - len(first)

    def _end_waiting(self, taken: int) -> None:
        """Add the wait and the ``taken`` bytes: the client has read on."""
        self._waited += monotonic() - self._blocked_at
        self._taken += taken
        self.blocked_bytes = 0
