"""One log line and one observation for each request, and the id that ties them together.

A `Call` is what is known of a request while it is served. The front makes it and leaves it in the
WSGI environ, where whatever answers finds it.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from flask import Flask, Response, abort, request
from werkzeug.exceptions import ServiceUnavailable

from app.extension import lantern
from app.telemetry.logs import EventLog
from app.telemetry.metrics import Metrics

events = EventLog("lantern.request")

ID_HEADER = "X-Request-ID"
CALL = "lantern.call"
"""The key of the `Call` in a WSGI environ."""
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LONGEST_PATH_SHOWN = 200
_NOTHING: Mapping[str, Any] = {}


class Call:
    """A request from its start to its end: ``started`` is a reading of `perf_counter`.

    The guard notes the ``caller``, where keys are required. Who serves it notes the ``route`` it
    matched, the ``model`` and ``model_version`` that answer, and the ``rows`` that were predicted.
    ``failure`` is what the short path failed with, until Flask words it. ``environ`` is WSGI's,
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

    def __init__(self, method: str, path: str, environ: Mapping[str, Any]) -> None:
        self.started = perf_counter()
        self.method = method
        self.path = path
        self.environ = environ
        given_id = environ.get("HTTP_X_REQUEST_ID")
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

    def end(self, status: int, metrics: Metrics) -> None:
        """Log and count the request, which is answered with ``status``.

        It lets go of the environ, which holds it: in a circle they would keep each other, and the
        body with them, until the garbage is collected.
        """
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
        events.info("request", fields)
        self.environ = _NOTHING


def init_app(app: Flask) -> None:
    """Have Flask take over the `Call` of every request, and end it."""
    app.before_request(_begin)
    app.after_request(_end)


def current_call() -> Call:
    """Give the call that Flask is handling."""
    call: Call = request.environ[CALL]
    return call


def _begin() -> None:
    environ = request.environ
    call = current_call()
    call.method = request.method
    if request.url_rule:
        call.route = request.url_rule.rule
    refusal = environ.get("app.worker.refusal")
    if refusal is not None:  # too large, too late or malformed: the worker has not read it
        if refusal.retry_after is not None:
            raise ServiceUnavailable(refusal.detail, retry_after=refusal.retry_after)
        abort(refusal.status, refusal.detail)


def _end(response: Response) -> Response:
    call = current_call()
    response.headers[ID_HEADER] = call.request_id
    call.end(response.status_code, lantern().metrics)
    return response


_process = b""
_numbers = itertools.count()


def _renew() -> None:
    global _process, _numbers
    _process, _numbers = os.urandom(8), itertools.count()


_renew()
os.register_at_fork(after_in_child=_renew)


def _new_id() -> str:
    """Give an id that no other request has: the process's own random half, and a number."""
    return f"{_process.hex()}{next(_numbers):016x}"
