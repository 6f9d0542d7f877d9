"""The context of a request: what is known of it while it is served.

The admission middleware makes it and leaves it in the WSGI environ, where whatever answers finds
it. When it ends, the request is logged and counted once.
"""

from __future__ import annotations

import io
import itertools
import os
import re
from collections.abc import Iterator
from time import perf_counter
from typing import Any

from flask import Flask, Response, abort, request
from werkzeug.exceptions import ServiceUnavailable

from ..access.header_names import REQUEST_ID, environ_key
from ..telemetry.logs import request_log
from ..telemetry.metrics import Metrics
from ..worker.contract import REJECTION, rejection, set_held_bytes
from .extension import current_lantern

CONTEXT = "lantern.context"
"""The key of the context in a WSGI environ."""
_GIVEN_ID = environ_key(REQUEST_ID)
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LONGEST_PATH_SHOWN = 200


class RequestContext:
    """A request from its start to its end: ``started`` is a reading of `perf_counter`.

    The guard notes the ``caller``, where keys are required. Who serves it notes the ``route`` it
    matched, the ``model`` and ``model_version`` that answer, and the ``rows`` that were predicted.
    ``failure`` is what the fast path failed with, until Flask words it. ``environ`` is WSGI's,
    for the headers; ``path`` is as the client has it, with the prefix.
    """

    __slots__ = (
        "caller",
        "environ",
        "failure",
        "method",
        "model",
        "model_version",
        "path",
        "request_id",
        "route",
        "rows",
        "started",
    )

    def __init__(self, method: str, path: str, environ: dict[str, Any]) -> None:
        self.started = perf_counter()
        self.method = method
        self.path = path
        self.environ = environ
        given_id = environ.get(_GIVEN_ID)
        # An id goes into logs and headers: only what can't be mistaken for anything else is kept.
        self.request_id = given_id if given_id and _SANE_ID.fullmatch(given_id) else _new_id()
        self.route = "unmatched"
        self.caller: str | None = None
        self.model: str | None = None
        self.model_version: str | None = None
        self.rows: int | None = None
        self.failure: Exception | None = None

    def raise_failure(self) -> None:
        """Raise what this request has failed with already, if it has; nothing keeps it then."""
        failure, self.failure = self.failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # its traceback holds this frame, which must not hold it

    def end(
        self, status: int, metrics: Metrics, seconds: float | None = None, *, complete: bool = True
    ) -> None:
        """Log and count the request, which is answered with ``status``.

        It took ``seconds``, by default those since it began. ``complete`` is False where the caller
        left before the answer was whole. It lets go of the environ, which holds it: in a circle
        they would keep each other, and the body with them, until the garbage is collected.
        """
        if seconds is None:
            seconds = perf_counter() - self.started
        # Labels are bounded: neither a path nor a method that someone made up becomes one.
        method = self.method if self.method in _METHODS else "other"
        metrics.request_served(method, self.route, status, seconds)
        fields = {
            "request_id": self.request_id,
            "method": self.method,
            "path": self.path[:_LONGEST_PATH_SHOWN],
            "status": status,
            "milliseconds": round(seconds * 1000, 3),
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
    """The body of a response (200) that is made while it is sent; it ends ``context`` when it is
    whole, or given up.

    The first part is made at once: what raises, raises before the answer begins. The request takes
    as long as until then, and as making the other parts; the caller's time to read them, and that
    of others who are served in between, don't count. ``held`` is how many bytes of memory ``parts``
    are made from.
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
            self._context.environ["wsgi.input"] = io.BytesIO()  # nobody reads again what was sent
        part = next(self._parts, None)
        self._seconds += perf_counter() - begun
        if part is None:
            self._end(complete=True)
            raise StopIteration
        return part

    def close(self) -> None:
        """Discard what is left of the answer, if anything is; servers call it (PEP 3333)."""
        self._end(complete=False)

    def _end(self, *, complete: bool) -> None:
        if self._parts is not None:
            self._parts = None
            self._context.end(200, self._metrics, self._seconds, complete=complete)


def init_app(app: Flask) -> None:
    """Take over the context of every request that Flask handles, and end it."""
    app.before_request(_begin)
    app.after_request(_end)


def current_context() -> RequestContext:
    """Return the context of the request that Flask is handling."""
    context: RequestContext = request.environ[CONTEXT]
    return context


def _begin() -> None:
    environ = request.environ
    context = current_context()
    context.method = request.method
    if request.url_rule:
        context.route = request.url_rule.rule
    # Too large, too late or malformed: the worker has not read it.
    if REJECTION in environ:
        rejected = rejection(environ)
        if rejected.retry_after is not None:
            raise ServiceUnavailable(rejected.detail, retry_after=rejected.retry_after)
        abort(rejected.status, rejected.detail)


def _end(response: Response) -> Response:
    context = current_context()
    response.headers[REQUEST_ID] = context.request_id
    if not isinstance(response.response, StreamedResponse):
        context.end(response.status_code, current_lantern().metrics)
    return response


_process = b""
_numbers = itertools.count()


def _renew() -> None:
    global _process, _numbers
    _process, _numbers = os.urandom(8), itertools.count()


_renew()
os.register_at_fork(after_in_child=_renew)


def _new_id() -> str:
    """Return an id that no other request has: the process's own random half, and a number."""
    return f"{_process.hex()}{next(_numbers):016x}"
