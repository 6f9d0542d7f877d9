"""A read deadline for request bodies, under workers that read from blocking sockets.

Gunicorn's own workers wait indefinitely for a body. Here, one thread per process watches the
connections that are being read, and shuts the overdue ones down for reading only: the reader gets
what has arrived, and can still send a response (except under TLS).
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
    """Remember the request that this thread is about to serve; Gunicorn's ``pre_request`` hook."""
    _served.request = request


def close_after_answer() -> None:
    """Close the connection of this thread's request after the response.

    Gunicorn ignores a ``Connection`` header of the application, so its request is changed.
    """
    request = getattr(_served, "request", None)
    if request is not None:
        request.force_close()


class ReadDeadline:
    """A context manager that stops reading from ``connection`` after ``seconds``.

    ``passed`` is True if it did. Without a connection (a test client) it does nothing.
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

    def is_overdue(self, now: float) -> bool:
        """Return True if the deadline has passed at the monotonic time ``now``."""
        return now >= self._at

    def end_reading(self) -> None:
        """Shut the connection down for reading."""
        self.passed = True
        assert self._connection is not None
        with contextlib.suppress(OSError):  # closed already
            # Not the method of a TLS socket, which would go on in clear text.
            socket.socket.shutdown(self._connection, socket.SHUT_RD)


class _Watcher:
    """The thread that enforces deadlines. It starts with the first one, so after any fork."""

    INTERVAL = 0.25

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deadlines: set[ReadDeadline] = set()
        self._any = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, deadline: ReadDeadline) -> None:
        """Watch ``deadline``. Raises `MemoryError` if the thread for that can't be started."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(
                    target=self._watch, name="lantern-read-deadlines", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError as error:  # "can't start new thread"
                    raise MemoryError(str(error)) from error
                self._thread = thread
            self._deadlines.add(deadline)
        self._any.set()

    def remove(self, deadline: ReadDeadline) -> None:
        with self._lock:
            self._deadlines.discard(deadline)

    def _watch(self) -> None:
        while True:
            self._any.wait()
            time.sleep(self.INTERVAL)
            now = time.monotonic()
            # Under the lock, so that no connection is touched once its request has removed it.
            with self._lock:
                overdue = {deadline for deadline in self._deadlines if deadline.is_overdue(now)}
                for deadline in overdue:
                    deadline.end_reading()
                self._deadlines -= overdue
                if not self._deadlines:
                    self._any.clear()


_watcher = _Watcher()
