"""The kernel's timestamps of received bytes, which may have waited while a worker was busy.

See SO_TIMESTAMPNS in socket(7) and ``<asm-generic/socket.h>``.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from time import time

_SO_TIMESTAMPNS = 35
_TIMESTAMP = struct.Struct("@ll")
_SPACE = socket.CMSG_SPACE(_TIMESTAMP.size)


def enable_timestamps(listener: socket.socket) -> None:
    """Enable the kernel's timestamps on a listener; its connections inherit the option."""
    with contextlib.suppress(OSError):  # not every kernel has it
        listener.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def receive_with_age(sock: socket.socket, most: int) -> tuple[bytes, float]:
    """Receive up to ``most`` bytes; return them, and how many seconds ago the last of them arrived.

    The age is 0 if the kernel doesn't record it, and negative or too large if the clock was set.
    Raises `OSError` as `socket.recv` does.
    """
    data, fields, _, _ = sock.recvmsg(most, _SPACE)
    return data, _age(fields)


def receive_into_with_age(sock: socket.socket, room: memoryview) -> tuple[int, float]:
    """Receive into ``room``; return how many bytes, and the age as `receive_with_age` does."""
    received, fields, _, _ = sock.recvmsg_into([room], _SPACE)
    return received, _age(fields)


def _age(fields: list[tuple[int, int, bytes]]) -> float:
    for level, kind, value in fields:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIMESTAMP.unpack(value)
            age: float = time() - seconds - nanoseconds / 1e9
            return age
    return 0.0
