"""Accepting: new connections are taken from the listeners while this worker should have them.

It leaves a connection to a worker that is less loaded, and has an idle one closed if there is no
room. What becomes of an accepted connection is the worker's affair.
"""

from __future__ import annotations

import contextlib
import os
import socket
from select import EPOLLIN
from time import monotonic
from typing import Any, Protocol

from gunicorn.http.wsgi import base_environ

from .connection import Connection
from .contract import Environ
from .head import HeadParser, is_trusted
from .owner import ConnectionOwner
from .timestamps import enable_timestamps

_FULL_SECONDS = 0.05
"""Seconds for which a full worker without an idle connection leaves new connections waiting."""
_YIELDED_SECONDS = 0.05
"""A worker that yielded a connection accepts it within this time, if no other worker has."""
_FAILED_SECONDS = 1.0
"""Seconds for which no connection is accepted after the system could not, for want of
descriptors."""
_MAX_ACCEPTED = 64
"""The most connections that are accepted before open ones are read again."""


class AcceptorOwner(ConnectionOwner, Protocol):
    """The worker, as its acceptor sees it.

    ``is_full`` is True if it has as many connections as it may, and ``should_yield`` if another
    worker that accepts connections is less loaded.
    """

    cfg: Any
    sockets: list[socket.socket]
    yield_seconds: float

    @property
    def is_full(self) -> bool: ...

    @property
    def should_yield(self) -> bool: ...

    def make_room(self) -> bool:
        """Close an idle connection; return False if there is none."""

    def add(self, connection: Connection) -> None:
        """Add an accepted connection to the event loop."""


class Acceptor:
    """Accepts connections for ``owner``; ``listeners`` has its sockets by their descriptors."""

    def __init__(self, owner: AcceptorOwner) -> None:
        self._owner = owner
        self._is_polled = False
        self._accept_at = 0.0
        self._parsers = {
            trusted: HeadParser(owner.cfg, owner.find_direct, trusted=trusted)
            for trusted in (False, True)
        }
        self.listeners: dict[int, tuple[socket.socket, Environ]] = {}
        environ = base_environ(owner.cfg)
        environ["SCRIPT_NAME"] = ""
        environ["wsgi.url_scheme"] = "http"
        for listener in owner.sockets:
            listener.setblocking(False)
            enable_timestamps(listener)
            self.listeners[listener.fileno()] = (listener, environ | _server_names(listener))

    def update(self) -> None:
        """Poll the listeners, or don't while the worker is to accept nothing."""
        is_due = monotonic() >= self._accept_at
        if is_due != self._is_polled:
            self._poll(is_due)

    def seconds_to_wait(self, most: float) -> float:
        """Return how many seconds, at most ``most``, the loop may wait until `update` is due."""
        if self._is_polled or not self.listeners:
            return most
        return min(most, max(0.0, self._accept_at - monotonic()))

    def accept(self, fd: int) -> bool:
        """Accept connections of a listener; return True if some may be left waiting."""
        with contextlib.suppress(BlockingIOError):
            for number in range(_MAX_ACCEPTED):
                if not self._may_accept(is_first=number == 0):
                    return True
                if not self._accept_one(*self.listeners[fd]):
                    return True
            return True
        return False

    def close(self) -> None:
        """Accept the connections that wait, and close the listeners."""
        if self._is_polled:
            self._poll(False)
        for listener, environ in self.listeners.values():
            with contextlib.suppress(BlockingIOError):
                for _ in range(self._owner.cfg.backlog):
                    if not self._accept_one(listener, environ):
                        break
            listener.close()
        self.listeners.clear()

    def _poll(self, is_polled: bool) -> None:
        self._is_polled = is_polled
        for fd in self.listeners:
            if is_polled:
                self._owner.poller.register(fd, EPOLLIN)
            else:
                self._owner.poller.unregister(fd)

    def _may_accept(self, *, is_first: bool) -> bool:
        """Return True to accept a connection now; if not, set when to try again."""
        owner = self._owner
        if owner.is_full and not is_first:
            return False  # close no idle connection unless a new one is certain to wait
        if owner.is_full and not owner.make_room():
            self._accept_at = monotonic() + _FULL_SECONDS
            return False
        if owner.should_yield:
            if not is_first:
                return False
            now = monotonic()
            if not 0 <= now - self._accept_at < _YIELDED_SECONDS:
                self._accept_at = now + owner.yield_seconds
                return False
        self._accept_at = 0.0
        return True

    def _accept_one(self, listener: socket.socket, environ: Environ) -> bool:
        """Accept a connection; return False if it failed.

        Raises `BlockingIOError` if none waits.
        """
        owner = self._owner
        try:
            sock, peer = listener.accept()
        except BlockingIOError:
            raise
        except ConnectionAbortedError:
            return False
        except OSError as error:
            owner.log.warning("Can't accept connections for now: %s", error.strerror)
            self._accept_at = monotonic() + _FAILED_SECONDS
            return False
        try:
            sock.setblocking(False)
            template = environ.copy()
            if isinstance(peer, tuple):
                template["REMOTE_ADDR"], template["REMOTE_PORT"] = peer[0], str(peer[1])
            else:
                template["REMOTE_ADDR"] = os.fsdecode(peer)
            parser = self._parsers[is_trusted(owner.cfg, peer)]
            connection = Connection(owner, sock, template, parser)
        except Exception:
            owner.log.exception("Error on a new connection, which is closed")
            sock.close()
            return False
        owner.add(connection)
        return True


def _server_names(listener: socket.socket) -> Environ:
    """Return the server's name and port; nothing for a Unix socket, for which Host has them."""
    name = listener.getsockname()
    if isinstance(name, tuple):
        return {"SERVER_NAME": name[0], "SERVER_PORT": str(name[1])}
    return {}
