"""The interface of the worker for its connections."""

from __future__ import annotations

import select
from collections.abc import Mapping
from typing import Any, Protocol

from .call_queue import CallQueues
from .contract import DirectCall, Environ
from .hooks import Hooks
from .rejection import Rejection
from .request import Request
from .request_queue import RequestQueue
from .request_reader import BodyPolicy
from .response import Application


class ConnectionOwner(BodyPolicy, Protocol):
    """The owner of connections: it polls their sockets and advances them.

    The timeouts and limits are documented at `KeepAliveWorker`. ``unwatched_seconds`` is the time
    between the last two polls, and ``unaccepted_seconds`` the longest that a connection accepted
    now may have waited. ``is_behind`` is True if another worker would serve a request much sooner,
    and ``is_ending`` if exceptions are the worker's own, to end it. Requests that take long wait in
    ``calls``, and all others in ``queue``.
    """

    log: Any
    poller: select.epoll
    queue: RequestQueue[Request]
    calls: CallQueues[Request]
    hooks: Hooks | None
    wsgi: Application
    is_ending: bool
    unwatched_seconds: float
    delegates_rejections: bool
    setting_names: Mapping[str, str]
    headers_timeout_seconds: float
    body_timeout_seconds: float
    keepalive_seconds: float
    send_timeout_seconds: float
    min_send_rate: int

    @property
    def unaccepted_seconds(self) -> float: ...

    @property
    def is_behind(self) -> bool: ...

    def pool_queue(self, environ: Environ, /) -> str | None:
        """Return the queue of ``calls`` in which a request waits for a thread, if it does."""

    def find_direct(self, environ: Environ, /) -> DirectCall | None:
        """Return what answers requests with a head without WSGI, if anything does."""

    def count_request(self, *, is_last: bool) -> bool:
        """Count a request; return True if its connection may be kept."""

    def may_keep(self, *, is_last: bool) -> bool:
        """Return True if a connection may be kept."""

    def hold(self, fd: int, more: int) -> bool:
        """Add ``more`` to the bytes that a connection holds; return False if it holds too much."""

    def too_much_held(self) -> Rejection:
        """Return the rejection for a connection that holds too much."""

    def warn(self, message: str, *arguments: object) -> None:
        """Log a warning about a client, up to a limit."""

    def forget(self, fd: int) -> None:
        """Remove a connection that is being closed."""
