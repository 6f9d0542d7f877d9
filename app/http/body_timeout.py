"""A deadline for the body of a request, under workers that read from blocking sockets.

Gunicorn's workers wait for a body as long as its sender likes. One thread a process watches the
connections that are being read from, and ends the reading (not the connection) of those that are
overdue: the reader then gets what came so far, and can still answer (not under TLS, where the end
of the stream is the end of the conversation).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Any, Self

_served = threading.local()


def begin_request(request: Any) -> None:
    """Note the request that this thread is about to serve; Gunicorn's ``pre_request`` hook."""
    _served.request = request


def close_after_answer() -> None:
    """Close the connection of this thread's request once it is answered.

    Gunicorn takes no notice of a ``Connection`` header of ours, so its request is told.
    """
    request = getattr(_served, "request", None)
    if request is not None:
        request.force_close()


class ReadDeadline:
    """A context in which reading from ``connection`` ends after ``seconds``.

    ``passed`` tells whether it did. Without a connection (a test client) it does nothing.
    """

    def __init__(self, connection: socket.socket | None, seconds: float) -> None:
        self.passed = False
        self._connection = connection
        self._seconds = seconds
        self._at = 0.0

    def __enter__(self) -> Self:
        if self._connection is not None:
            self._at = time.monotonic() + self._seconds
            _watcher.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            _watcher.remove(self)

    def overdue(self, now: float) -> bool:
        return now >= self._at

    def end_reading(self) -> None:
        self.passed = True
        assert self._connection is not None
        with contextlib.suppress(OSError):  # it is gone already
            # Not the method of a TLS socket, which would answer in clear text from then on.
            socket.socket.shutdown(self._connection, socket.SHUT_RD)


class _Watcher:
    """The thread and its list. The thread starts with the first deadline, so after any fork."""

    INTERVAL = 0.25

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deadlines: set[ReadDeadline] = set()
        self._any = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, deadline: ReadDeadline) -> None:
        with self._lock:
            self._deadlines.add(deadline)
            if self._thread is None:
                thread = threading.Thread(
                    target=self._watch, name="lantern-read-deadlines", daemon=True
                )
                thread.start()
                self._thread = thread
        self._any.set()

    def remove(self, deadline: ReadDeadline) -> None:
        with self._lock:
            self._deadlines.discard(deadline)

    def _watch(self) -> None:
        while True:
            self._any.wait()
            time.sleep(self.INTERVAL)
            now = time.monotonic()
            # Under the lock, so that no connection is touched after its request removed it.
            with self._lock:
                overdue = {deadline for deadline in self._deadlines if deadline.overdue(now)}
                for deadline in overdue:
                    deadline.end_reading()
                self._deadlines -= overdue
                if not self._deadlines:
                    self._any.clear()


_watcher = _Watcher()
