"""Sinks: writing to standard output or error without ever waiting for whoever reads it.

A pipe whose reader has stopped fills up, and a write to it then waits for ever. How to write
without waiting depends on what the other end is; nothing here knows of lines or logs.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Callable
from functools import partial
from typing import TextIO

Write = Callable[[bytes | bytearray], int]
"""Writes what is taken at once of some bytes, and gives their number. Raises OSError for none."""

_MODE = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
_own: dict[tuple[int, int], int] = {}
"""By device and inode of what they write to, the descriptors that were opened here."""


def open_sink(stream: TextIO | None) -> Write:
    """Return what writes to the file behind ``stream``, past the buffer of ``stream``.

    The descriptor itself is left as it is: it may be shared with other programs, which a flag like
    O_NONBLOCK on it would break. None, which Python has where a process was started without the
    stream, takes everything to nowhere.
    """
    if stream is None:
        return len
    stream.flush()
    try:
        fd = stream.fileno()
    except OSError:  # not a file, but something in memory
        return partial(_write_text, stream)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return partial(os.write, fd)
    if stat.S_ISSOCK(mode):  # as systemd gives
        return partial(_send, socket.socket(fileno=os.dup(fd)))
    try:
        return partial(os.write, _open_again(fd))
    except OSError:  # it is another user's, or there is no /proc
        poller = select.poll()
        poller.register(fd, select.POLLOUT)
        return partial(_write_if_ready, poller, fd)


def _open_again(fd: int) -> int:
    """Open what ``fd`` writes to once more, without waiting as the mode of this one alone."""
    status = os.fstat(fd)
    key = status.st_dev, status.st_ino
    if key not in _own:
        _own[key] = os.open(f"/proc/self/fd/{fd}", _MODE)
    return _own[key]


def _write_text(stream: TextIO, data: bytes | bytearray) -> int:
    stream.write(data.decode())
    stream.flush()
    return len(data)


def _send(sock: socket.socket, data: bytes | bytearray) -> int:
    return sock.send(data, socket.MSG_DONTWAIT)


def _write_if_ready(poller: select.poll, fd: int, data: bytes | bytearray) -> int:
    """Write no more than a pipe that has any room surely takes.

    Another process may fill that room first, and then this waits: the last way, not the best.
    """
    if not poller.poll(0):
        raise BlockingIOError
    return os.write(fd, data[: select.PIPE_BUF])
