"""A log handler that never blocks: lines that can't be written at once are buffered, then dropped.

No request may wait for the reader of the log, or fail because a disk is full; and a master that is
blocked replaces no worker. Where a loop says when it is idle, lines wait for that, and several are
written together: nothing here knows of the loop.
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
_LATE_SECONDS = 0.05
"""Seconds for which a line waits at most, unless it can't be written."""
_IDLE_ROUNDS = 100
"""After as many times that long without a line, the thread that writes late lines ends."""
_MANY = 14
"""So many lines of requests and predictions are written at once: they fit into one write."""
_EXIT_SECONDS = 1.0
"""Seconds for which the end of the process waits for the buffer to be written."""

_handlers: WeakSet[LineHandler] = WeakSet()
_deferring: list[LineHandler] = []
_observers: list[Callable[[str, int], None]] = []


def on_dropped(observer: Callable[[str, int], None]) -> None:
    """Call ``observer`` with the name of a stream and the number of its lines that were dropped."""
    _observers[:] = [observer]


def defer_lines() -> Callable[[], None]:
    """Let the lines that `LineHandler.write` takes wait from now on; return what writes them.

    Call that whenever there is nothing else to do. Lines are also written when there are enough for
    one write, before any record of this process, after 50 ms, and when the process exits. A process
    that is forked from this one writes its lines at once.
    """
    _deferring[:] = _handlers
    for handler in _deferring:
        handler.defers = True
    return _write_deferred


def _write_deferred() -> None:
    for handler in _deferring:
        if handler.lines:
            handler.flush()


class LineHandler(logging.Handler):
    """Writes log records to the file behind ``stream``, without blocking.

    A record with ``more_follows`` is buffered, and written together with the next one.

    A line of at most PIPE_BUF bytes (4096) is written as a whole or not at all, so that the lines
    of several processes don't mix. A pipe that is nearly full may take a part of a longer one; the
    rest is written before anything else of this process.

    ``lines`` are those that wait because the handler ``defers`` them; see `defer_lines`.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._write = open_sink(stream)
        self._stream = str(getattr(stream, "name", "")).strip("<>")
        self.lines: list[bytes] = []
        self.defers = False
        self._held = bytearray()
        self._dropped = 0  # and not yet logged
        self._is_notifying = False
        self._late: threading.Thread | None = None
        _handlers.add(self)

    def write(self, line: bytes, *, more_follows: bool = False) -> None:
        """Write a line that is encoded already; ``more_follows`` is as in a record."""
        self.lines.append(line)  # which needs no lock
        if len(self.lines) >= _MANY or not (more_follows or self.defers):
            self.flush()
        elif self._late is None and self.defers:
            self._write_late()

    def handle(self, record: logging.LogRecord) -> bool:
        _write_deferred()  # first, because they may go to the same file
        return super().handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        except Exception:
            self.handleError(record)
            return
        self._hold_lines()
        self._hold(line)
        if not record.__dict__.get("more_follows"):
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
        self._hold_lines()
        try:
            while True:
                if self._dropped and len(held) < MAX_HELD // 2:
                    held += self._notice()
                if not held:
                    break
                taken = self._write(held if len(held) <= PIPE_BUF else _first_lines(held))
                del held[:taken]
        except OSError:  # the pipe is full, its reader is gone, or the disk is full
            self._write_late()
        except ValueError:  # a stream in memory, which was closed
            held.clear()

    def _hold_lines(self) -> None:
        lines = self.lines[:]  # other threads may append meanwhile
        joined = b"".join(lines)
        if not self._dropped and len(self._held) + len(joined) <= MAX_HELD:
            self._held += joined
        else:
            for line in lines:
                self._hold(line)
        # Last: if a signal ends the process here, lines are written twice, and none is lost.
        del self.lines[: len(lines)]

    def _hold(self, line: bytes) -> None:
        """Buffer a line, or drop it if there is no room."""
        if self._dropped or len(self._held) + len(line) > MAX_HELD:
            self._drop()
        else:
            self._held += line

    def close(self) -> None:
        """Write the buffer, for at most a second."""
        until = time.monotonic() + _EXIT_SECONDS
        self.flush()
        while self._held and time.monotonic() < until:
            time.sleep(_LATE_SECONDS / 5)
            self.flush()
        lost = self._held.count(b"\n")
        if lost:
            self._notify(lost)
            self._held.clear()
        super().close()

    def forget(self) -> None:
        """Discard the buffer, in a process that was forked: its parent writes it."""
        self.lines.clear()
        self._held.clear()
        self._dropped = 0
        self.defers = False
        self._late = None

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

    def _write_late(self) -> None:
        """Start a thread that writes the buffer in a while, if there is none."""
        if self._late is None:
            thread = threading.Thread(target=self._go, name="lantern-log", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # too many threads, or the process is ending
                return
            self._late = thread

    def _go(self) -> None:
        idle_rounds = 0
        while idle_rounds < _IDLE_ROUNDS:
            time.sleep(_LATE_SECONDS)
            if self.lines or self._held:
                idle_rounds = 0
                self.flush()
            else:
                idle_rounds += 1
        self._late = None
        if self.lines:  # written meanwhile, and trusted to this thread
            self.flush()


def _first_lines(held: bytearray) -> bytearray:
    """Return the first line, and as many after it as fit into one write."""
    end = held.rfind(b"\n", 0, PIPE_BUF) + 1 or held.find(b"\n") + 1
    return held[:end]


def _after_fork() -> None:
    _deferring.clear()
    for handler in _handlers:
        handler.forget()


os.register_at_fork(after_in_child=_after_fork)
