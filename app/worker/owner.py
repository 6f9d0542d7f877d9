"""What a connection needs of the worker that owns it, and no more."""

from __future__ import annotations

import select
from typing import Any, Protocol

from .contract import Environ
from .hooks import Hooks
from .rejection import Rejection
from .request_queue import RequestQueue
from .request_reader import BodyPolicy
from .response import Application


class ConnectionOwner(BodyPolicy, Protocol):
    """The owner of connections: it waits for their sockets and advances them.

    The timeouts and limits are documented at `KeepAliveWorker`. ``unwatched_seconds`` is how long
    nobody looked at the sockets before the last time, ``unaccepted_seconds`` how long a connection
    that is accepted now may have waited for it, ``is_behind`` whether another worker would serve a
    request much sooner, and ``is_ending`` whether the worker itself raises to end.
    """

    log: Any
    poller: select.epoll
    queue: RequestQueue[Environ]
    hooks: Hooks | None
    wsgi: Application
    is_ending: bool
    unwatched_seconds: float
    delegates_rejections: bool
    headers_timeout_seconds: float
    body_timeout_seconds: float
    keepalive_seconds: float
    send_timeout_seconds: float
    min_send_rate: int

    @property
    def unaccepted_seconds(self) -> float: ...

    @property
    def is_behind(self) -> bool: ...

    def count_request(self, *, is_last: bool) -> bool:
        """Count a request; return True if its connection may be kept."""

    def hold(self, fd: int, more: int) -> bool:
        """Count ``more`` bytes held by a connection; return False if it holds too much."""

    def too_much_held(self) -> Rejection:
        """Return the rejection for a connection that holds too much."""

    def warn(self, message: str, *arguments: object) -> None:
        """Log what a client did wrong, up to a limit."""

    def forget(self, fd: int) -> None:
        """Remove a connection that is closing."""
