"""Sinks: non-blocking writes to standard output or error.

A pipe whose reader has stopped fills up, and a write to it blocks forever. How to avoid that
depends on the kind of file; nothing here knows of lines or logs.
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
"""Writes as many bytes as possible without blocking, and returns their number.

Raises `OSError` if that is none.
"""

_MODE = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
_own: dict[tuple[int, int], int] = {}
"""The descriptors that were opened here, by the device and inode of their files."""


def open_sink(stream: TextIO | None) -> Write:
    """Return a function that writes to the file behind ``stream``, bypassing its buffer.

    The descriptor itself is not changed: other programs may share it, which O_NONBLOCK would break.
    For None, which is Python's stream of a process that was started without one, everything is
    discarded.
    """
    if stream is None:
        return len
    stream.flush()
    try:
        fd = stream.fileno()
    except OSError:  # a stream in memory
        return partial(_write_text, stream)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return partial(os.write, _duplicate(fd))
    if stat.S_ISSOCK(mode):  # under systemd
        return partial(_send, socket.socket(fileno=os.dup(fd)))
    try:
        return partial(os.write, _open_again(fd))
    except OSError:  # another user's file, or no /proc
        poller = select.poll()
        poller.register(fd, select.POLLOUT)
        return partial(_write_if_ready, poller, fd)


def _duplicate(fd: int) -> int:
    """Return a duplicate of ``fd``. It stays open if something closes ``fd``, whose number a
    client's connection may then get.
    """
    status = os.fstat(fd)
    key = status.st_dev, status.st_ino
    if key not in _own:
        _own[key] = os.dup(fd)
    return _own[key]


def _open_again(fd: int) -> int:
    """Open the file of ``fd`` again, so that only the new descriptor is non-blocking."""
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
    """Write at most as much as is certain to fit into a pipe that is ready.

    This blocks if another process fills the pipe first, so it is the last resort.
    """
    if not poller.poll(0):
        raise BlockingIOError
    return os.write(fd, data[: select.PIPE_BUF])
