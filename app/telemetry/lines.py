"""Lines of a log: written at once where that can be done without waiting, else held, else dropped.

No request may wait for whoever reads the log, nor fail because its disk is full; and a master that
waits replaces no worker.
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
"""Bytes of lines that are held while they can't be written; those that follow are dropped."""
_AGAIN_SECONDS = 0.1
_EXIT_SECONDS = 1.0
"""How long the end of the process waits for what is held."""

_handlers: WeakSet[LineHandler] = WeakSet()
_told: list[Callable[[str, int], None]] = []


def when_dropped(tell: Callable[[str, int], None]) -> None:
    """Call ``tell`` with the name of a stream and how many of its lines were dropped."""
    _told[:] = [tell]


class LineHandler(logging.Handler):
    """Writes the lines of a log to ``stream``, or rather to the file behind it.

    A record that says ``more_follows`` is held, and written together with the next one.

    A line of at most PIPE_BUF bytes (4096) is written whole or not at all, so that those of several
    processes don't mix. Of a longer one a pipe that is nearly full may take a part; the rest goes
    before anything else of this process.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._write = open_sink(stream)
        self._stream = str(getattr(stream, "name", "")).strip("<>")
        self._held = bytearray()
        self._dropped = 0  # and not yet told in the log
        self._telling = False
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
        """Write what is held, as far as that goes without waiting."""
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
        except OSError:  # nobody reads, the reader is gone, the disk is full
            self._wait()
        except ValueError:  # a stream in memory, which was closed
            held.clear()

    def close(self) -> None:
        """Write what is held, for which this waits a little."""
        until = time.monotonic() + _EXIT_SECONDS
        self.flush()
        while self._held and time.monotonic() < until:
            time.sleep(_AGAIN_SECONDS / 10)
            self.flush()
        lost = self._held.count(b"\n")
        if lost:
            self._tell(lost)
            self._held.clear()
        super().close()

    def forget(self) -> None:
        """Leave what is held to the process that this one was forked from."""
        self._held.clear()
        self._dropped = 0
        self._waiting = None

    def _drop(self) -> None:
        self._dropped += 1
        if not self._telling:  # to fail at telling it may be logged, here
            self._telling = True
            try:
                self._tell(1)
            finally:
                self._telling = False

    def _tell(self, lines: int) -> None:
        for tell in _told:
            tell(self._stream, lines)

    def _notice(self) -> bytes:
        """Return the line that says how many were dropped where it stands."""
        dropped, self._dropped = self._dropped, 0
        text = "%d lines of the log were dropped: nobody took them"
        record = logging.LogRecord(
            "lantern.log", logging.WARNING, __file__, 0, text, (dropped,), None
        )
        return self.format(record).encode() + b"\n"

    def _wait(self) -> None:
        """Start a thread that writes what is held, if no further line does."""
        if self._waiting is None:
            thread = threading.Thread(target=self._try_again, name="lantern-log", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # there are too many threads, or the process ends
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
    """Return the first line, and those after it that fit into one write together."""
    end = held.rfind(b"\n", 0, PIPE_BUF) + 1 or held.find(b"\n") + 1
    return held[:end]


def _after_fork() -> None:
    for handler in _handlers:
        handler.forget()


os.register_at_fork(after_in_child=_after_fork)
