"""The contract between a worker and the application it serves, beyond WSGI (PEP 3333).

Worker and application share the environ of a request. They exchange information there only by the
names and accessors of this module; an application may ignore all of them.

=================  ====================  =========================================================
key                set by                value
=================  ====================  =========================================================
`REJECTION`        worker                the `Rejection` for which the application makes a response
`OVERDUE`          worker                seconds that the request has waited, or would, over budget
`HELD_BYTES`       application           bytes held in memory until the response is sent
`MEMORY`           worker                a dictionary that requests with the same head share
=================  ====================  =========================================================

Of requests whose heads come again, it may also answer some by a `DirectCall`, without WSGI.

The method of a request that is rejected before its head was read is `UNREAD`. Any other rejected
request has the method, path and headers that it was sent with, and an empty body.

Test for a key with ``REJECTION in environ``, which costs no call; read and write its value with the
accessors, which have its type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Protocol

from .rejection import Rejection

__all__ = [
    "HELD_BYTES",
    "MEMORY",
    "OVERDUE",
    "REJECTION",
    "UNREAD",
    "DirectCall",
    "Environ",
    "Rejection",
    "held_bytes",
    "overdue_seconds",
    "rejection",
    "set_held_bytes",
    "set_overdue",
    "set_rejection",
]

Environ = dict[str, Any]


class DirectCall(Protocol):
    """What answers requests with one head, instead of the call of WSGI; see
    `KeepAliveWorker.find_direct`.
    """

    @property
    def takes_long(self) -> bool:
        """True if such a request may have to wait for a thread: it isn't answered by this then."""

    @property
    def may_send_body(self) -> bool:
        """True if anybody may send such a body: `KeepAliveWorker.may_send_body` isn't asked."""

    def __call__(self, body: bytes, make_environ: Callable[[], Environ], /) -> bytes | None:
        """Return the header fields of a response with the status 200, each with its CRLF, an empty
        line, and the body, of which the fields have the Content-Length.

        Return None to be called by WSGI, with the environ that ``make_environ`` returns: what was
        put there is found again. Called in the loop, for a request that is in time.
        """


REJECTION = "lantern.worker.rejection"
"""Present if the worker rejects the request and delegates the response to the application; see
`KeepAliveWorker.delegates_rejections`."""
OVERDUE = "lantern.worker.overdue"
"""Present if the request is not served in time; see `app.worker.request_queue`."""
HELD_BYTES = "lantern.worker.held_bytes"
"""Present if the application holds memory for a response that it encodes in parts. It counts
towards `KeepAliveWorker.max_held_bytes`, like what the connection itself holds."""
MEMORY = "lantern.worker.memory"
"""Present if requests with the same head came before. Where the application keeps what it found in
the head alone, so that it need not look again: not what depends on the connection, on time, or on
what may change. It is forgotten when there are too many heads."""

UNREAD = "UNREAD"
"""The ``REQUEST_METHOD`` of a request whose head was not read."""


def rejection(environ: Mapping[str, Any]) -> Rejection:
    """Return the worker's rejection of this request; `REJECTION` must be present."""
    found: Rejection = environ[REJECTION]
    return found


def set_rejection(environ: MutableMapping[str, Any], reason: Rejection) -> None:
    """Delegate the response to ``reason`` to the application."""
    environ[REJECTION] = reason


def overdue_seconds(environ: Mapping[str, Any]) -> float:
    """Return the seconds that a request has waited, or would; `OVERDUE` must be present."""
    seconds: float = environ[OVERDUE]
    return seconds


def set_overdue(environ: MutableMapping[str, Any], seconds: float) -> None:
    """Mark a request as overdue: it has waited, or would wait, ``seconds``."""
    environ[OVERDUE] = seconds


def held_bytes(environ: Mapping[str, Any]) -> int:
    """Return how many bytes the application holds until the response is sent."""
    held: int = environ.get(HELD_BYTES, 0)
    return held


def set_held_bytes(environ: MutableMapping[str, Any], held: int) -> None:
    """Record that the application holds ``held`` bytes until the response is sent."""
    environ[HELD_BYTES] = held
