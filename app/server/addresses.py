"""The addresses to listen on, checked before Gunicorn listens on them.

Gunicorn retries an address that is in use five times in five seconds, and logs three lines each
time.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

Address = tuple[str, int] | str | int
"""As `gunicorn.util.parse_address` returns it: of TCP, a path, or a file descriptor."""


def find_unusable(addresses: Iterable[Address], *, reuse_port: bool = False) -> str:
    """Return the first of ``addresses`` that can't be listened on, and why; empty if all can."""
    tried: set[Address] = set()
    for address in addresses:
        try:
            if address in tried and not reuse_port:
                raise OSError("it is named twice")
            tried.add(address)
            if isinstance(address, tuple):
                _try_tcp(address, reuse_port)
            elif isinstance(address, int):
                _try_descriptor(address)
            else:
                _try_path(address)
        except OSError as error:
            return f"{_words(address)}: {error.strerror or error}"
    return ""


def _try_tcp(address: tuple[str, int], reuse_port: bool) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            tried.bind(address)
        except OverflowError as error:  # as Python has it for a port above 65535
            raise OSError(str(error)) from None


def _try_descriptor(descriptor: int) -> None:
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise OSError("it is not a socket")
    except OverflowError:
        raise OSError("there is no such file descriptor") from None


def _try_path(path: str) -> None:
    if path.startswith("\0"):
        return  # in the abstract namespace
    try:
        # Gunicorn replaces an existing socket, which a killed server leaves behind.
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            raise OSError("a file exists there that is not a socket")
    except FileNotFoundError:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
            tried.bind(path)
            with suppress(OSError):
                Path(path).unlink()


def _words(address: Address) -> str:
    if isinstance(address, tuple):
        host, port = address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"fd://{address}" if isinstance(address, int) else f"unix:{address}"
