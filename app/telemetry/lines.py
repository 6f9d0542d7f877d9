"""A log handler that never blocks: lines that can't be written at once are buffered, then dropped.

No request may wait for the reader of the log, or fail because a disk is full; and a master that is
blocked replaces no worker.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from select import PIPE_BUF
from typing import TextIO
from weakref import WeakSet

from .sink import open_sink

MAX_HELD = 1 << 20
"""The most bytes that are buffered while they can't be written; further lines are dropped."""
_AGAIN_SECONDS = 0.1
_EXIT_SECONDS = 1.0
"""How long the end of the process waits for the buffer to be written."""

_handlers: WeakSet[LineHandler] = WeakSet()
_observers: list[Callable[[str, int], None]] = []


def on_dropped(observer: Callable[[str, int], None]) -> None:
    """Call ``observer`` with the name of a stream and the number of its lines that were dropped."""
    _observers[:] = [observer]


class LineHandler(logging.Handler):
    """Writes log records to the file behind ``stream``, without blocking.

    A record with ``more_follows`` is buffered, and written together with the next one.

    A line of at most PIPE_BUF bytes (4096) is written as a whole or not at all, so that the lines
    of several processes don't mix. A pipe that is nearly full may take a part of a longer one; the
    rest is written before anything else of this process.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._write = open_sink(stream)
        self._stream = str(getattr(stream, "name", "")).strip("<>")
        self._held = bytearray()
        self._dropped = 0  # and not yet logged
        self._is_notifying = False
        self._waiting: threading.Thread | None = None
        _handlers.add(self)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        except Exception:
            self.handleError(record)
            return
        held = self._held
        if self._dropped or len(held) + len(line) > MAX_HELD:
            self._drop()
        else:
            held += line
        if not record.__dict__.get("more_follows") or len(held) > PIPE_BUF:
            self._flush()

    def flush(self) -> None:
        """Write as much of the buffer as is possible without blocking."""
        self.acquire()
        try:
            self._flush()
        finally:
            self.release()

    def _flush(self) -> None:
        held = self._held
        try:
            while True:
                if self._dropped and len(held) < MAX_HELD // 2:
                    held += self._notice()
                if not held:
                    break
                taken = self._write(held if len(held) <= PIPE_BUF else _first_lines(held))
                del held[:taken]
        except OSError:  # the pipe is full, its reader is gone, or the disk is full
            self._wait()
        except ValueError:  # a stream in memory, which was closed
            held.clear()

    def close(self) -> None:
        """Write the buffer, for at most a second."""
        until = time.monotonic() + _EXIT_SECONDS
        self.flush()
        while self._held and time.monotonic() < until:
            time.sleep(_AGAIN_SECONDS / 10)
            self.flush()
        lost = self._held.count(b"\n")
        if lost:
            self._notify(lost)
            self._held.clear()
        super().close()

    def forget(self) -> None:
        """Discard the buffer, in a process that was forked: its parent writes it."""
        self._held.clear()
        self._dropped = 0
        self._waiting = None

    def _drop(self) -> None:
        self._dropped += 1
        if not self._is_notifying:  # an observer that fails may log that here
            self._is_notifying = True
            try:
                self._notify(1)
            finally:
                self._is_notifying = False

    def _notify(self, lines: int) -> None:
        for observer in _observers:
            observer(self._stream, lines)

    def _notice(self) -> bytes:
        """Return a line with the number of lines that were dropped before it."""
        dropped, self._dropped = self._dropped, 0
        text = "%d log lines were dropped, because the log could not be written"
        record = logging.LogRecord(
            "lantern.log", logging.WARNING, __file__, 0, text, (dropped,), None
        )
        return self.format(record).encode() + b"\n"

    def _wait(self) -> None:
        """Start a thread that writes the buffer, if there is none."""
        if self._waiting is None:
            thread = threading.Thread(target=self._try_again, name="lantern-log", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # too many threads, or the process is ending
                return
            self._waiting = thread

    def _try_again(self) -> None:
        while True:
            time.sleep(_AGAIN_SECONDS)
            self.acquire()
            try:
                self._flush()
                if not self._held:
                    self._waiting = None
                    return
            finally:
                self.release()


def _first_lines(held: bytearray) -> bytearray:
    """Return the first line, and as many after it as fit into one write."""
    end = held.rfind(b"\n", 0, PIPE_BUF) + 1 or held.find(b"\n") + 1
    return held[:end]


def _after_fork() -> None:
    for handler in _handlers:
        handler.forget()


os.register_at_fork(after_in_child=_after_fork)
