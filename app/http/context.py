"""The request context: what is known of a request while it is served.

The admission middleware creates it and puts it in the WSGI environ, where the fast path and Flask
find it. When it ends, the request is logged and counted, once.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator
from time import perf_counter
from typing import Any, Self

import msgspec
from flask import Request, request

from ..telemetry.logs import request_log
from ..telemetry.metrics import Metrics
from ..worker.contract import set_held_bytes
from .request_head import RequestHead

CONTEXT = "lantern.context"
"""The key of the context in a WSGI environ."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LONGEST_PATH_SHOWN = 200


class RequestContext(msgspec.Struct):
    """A request from its start to its end.

    ``started`` is a reading of `perf_counter`. ``environ`` is that of WSGI, for the headers.
    Admission sets the ``caller``, if keys are required. The fast path or Flask sets the ``route``,
    the ``model`` and ``model_version`` that predict, and the number of ``rows`` that were
    predicted. ``is_tried`` is True once the fast path has tried to make its ``answer``, and
    ``failure`` is the exception that it failed with, until Flask handles it. ``is_streamed`` is
    True if Flask sends a `StreamedResponse`, which ends the context.
    """

    head: RequestHead
    environ: dict[str, Any]
    method: str
    request_id: str
    started: float = msgspec.field(default_factory=perf_counter)
    route: str = "unmatched"
    caller: str | None = None
    model: str | None = None
    model_version: str | None = None
    rows: int | None = None
    is_tried: bool = False
    answer: Any = None
    failure: Exception | None = None
    is_streamed: bool = False
    has_ended: bool = False

    @classmethod
    def begin(cls, head: RequestHead, environ: dict[str, Any]) -> Self:
        """Return the context of a request that begins now, in its ``environ`` as `CONTEXT`."""
        context = environ[CONTEXT] = cls.of(head, environ)
        return context

    @classmethod
    def of(cls, head: RequestHead, environ: dict[str, Any]) -> Self:
        """Return the context of a request that begins now; ``environ`` has at least its head."""
        return cls(head, environ, head.method, head.request_id or _new_id())

    def raise_failure(self) -> None:
        """Raise and forget the exception that the fast path failed with, if it did."""
        failure, self.failure = self.failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # its traceback refers to this frame: no cycle

    def end(
        self, status: int, metrics: Metrics, seconds: float | None = None, *, complete: bool = True
    ) -> None:
        """Log and count the request, whose response has the ``status``.

        It took ``seconds``, by default those since it began. ``complete`` is False if the caller
        left before the end of the response. The environ is released: it refers to the context, and
        the cycle would keep both, and the body, until the next garbage collection. A context ends
        once: a hook may read a stream to its end before the response begins.
        """
        if self.has_ended:
            return
        self.has_ended = True
        if seconds is None:
            seconds = perf_counter() - self.started
        # Labels are bounded: a method or path that a caller made up must not become one.
        method = self.method if self.method in _METHODS else "other"
        metrics.request_served(method, self.route, status, seconds)
        fields = {
            "request_id": self.request_id,
            "method": self.method,
            "path": self.head.path[:_LONGEST_PATH_SHOWN],
            "status": status,
            "milliseconds": int(seconds * 1e6 + 0.5) / 1000,
            "model": self.model,
            "model_version": self.model_version,
            "rows": self.rows,
        }
        if self.caller is not None:
            fields["caller"] = self.caller
        if not complete:
            fields["complete"] = False
        request_log.info("request", fields)
        self.environ = {}


class StreamedResponse:
    """The body of a response (200) that is encoded while it is sent.

    It ends ``context`` when it is complete or abandoned. The first part is encoded at once, so that
    exceptions are raised before the response begins. The logged time of the request is that until
    then plus that of encoding the other parts, without the time that the caller takes to read, or
    that other requests take in between. ``held`` is how many bytes of memory ``parts`` are made
    from.
    """

    def __init__(
        self, context: RequestContext, parts: Iterator[bytes], held: int, metrics: Metrics
    ) -> None:
        self._parts: Iterator[bytes] | None = itertools.chain((next(parts),), parts)
        self._context = context
        self._held = held
        self._metrics = metrics
        self._seconds: float | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._parts is None:
            raise StopIteration
        begun = perf_counter()
        if self._seconds is None:
            self._seconds = begun - self._context.started
            set_held_bytes(self._context.environ, self._held)
            self._context.environ["wsgi.input"] = io.BytesIO()  # the request's body is not needed
        part = next(self._parts, None)
        self._seconds += perf_counter() - begun
        if part is None:
            self._end(complete=True)
            raise StopIteration
        return part

    def close(self) -> None:
        """Discard the rest of the response, if there is one; servers call this (PEP 3333)."""
        self._end(complete=False)

    def _end(self, *, complete: bool) -> None:
        if self._parts is not None:
            self._parts = None
            self._context.end(200, self._metrics, self._seconds, complete=complete)


def current_request() -> Request:
    """Return Flask's current request itself. Each use of its proxy costs more than all of these
    attributes together.
    """
    current: Request = request._get_current_object()  # type: ignore[attr-defined]
    return current


def current_context() -> RequestContext:
    """Return the context of the current request."""
    context: RequestContext = request.environ[CONTEXT]
    return context


_process = ""
_numbers = itertools.count()


def _renew() -> None:
    global _process, _numbers
    _process, _numbers = os.urandom(8).hex(), itertools.count()


_renew()
os.register_at_fork(after_in_child=_renew)


def _new_id() -> str:
    """Return a unique id: 64 random bits of this process, and the number of the request."""
    return f"{_process}{next(_numbers):016x}"
