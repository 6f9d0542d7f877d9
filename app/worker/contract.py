"""The contract between a worker and the application it serves, beyond WSGI (PEP 3333).

Worker and application share a request's environ. What they tell each other there, they tell by the
names and accessors of this module alone; an application may ignore them all.

=================  ====================  =========================================================
key                set by                value
=================  ====================  =========================================================
`REJECTION`        worker                the `Rejection` that the application is to put into words
`OVERDUE`          worker                seconds the request has waited, or would: over its budget
`HELD_BYTES`       application           bytes kept in memory until the response is sent
=================  ====================  =========================================================

Where a request is rejected before its head could be read, its method is `UNREAD`. Every other
rejected request has the method, path and fields it was sent with, and an empty body.

Each request asks whether a key is there: that is ``REJECTION in environ``, which costs no call. Its
value is read and written by the accessors, which state its type.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from .rejection import Rejection

__all__ = [
    "HELD_BYTES",
    "OVERDUE",
    "REJECTION",
    "UNREAD",
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

REJECTION = "lantern.worker.rejection"
"""Present if the worker rejects the request and has the application word the response; see
`KeepAliveWorker.delegates_rejections`."""
OVERDUE = "lantern.worker.overdue"
"""Present if the request is not served in time; see `app.worker.request_queue`."""
HELD_BYTES = "lantern.worker.held_bytes"
"""Present if the application keeps memory for a response that it makes piece by piece. It counts
towards `KeepAliveWorker.max_held_bytes`, like what the connection itself holds."""

UNREAD = "UNREAD"
"""``REQUEST_METHOD`` of a request whose head was not read."""


def rejection(environ: Mapping[str, Any]) -> Rejection:
    """Return why the worker rejects this request, where `REJECTION` is present."""
    found: Rejection = environ[REJECTION]
    return found


def set_rejection(environ: MutableMapping[str, Any], reason: Rejection) -> None:
    """Ask the application to word the response to ``reason``."""
    environ[REJECTION] = reason


def overdue_seconds(environ: Mapping[str, Any]) -> float:
    """Return the seconds a request has waited, or would, where `OVERDUE` is present."""
    seconds: float = environ[OVERDUE]
    return seconds


def set_overdue(environ: MutableMapping[str, Any], seconds: float) -> None:
    """Ask the application to refuse a request that waits ``seconds``, longer than it may."""
    environ[OVERDUE] = seconds


def held_bytes(environ: Mapping[str, Any]) -> int:
    """Return how many bytes the application keeps until the response is sent."""
    held: int = environ.get(HELD_BYTES, 0)
    return held


def set_held_bytes(environ: MutableMapping[str, Any], held: int) -> None:
    """State that the application keeps ``held`` bytes until the response is sent."""
    environ[HELD_BYTES] = held
