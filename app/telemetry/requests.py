"""One log line and one observation for each request, and the id that ties them together."""

from __future__ import annotations

import logging
import re
import time
import uuid

from flask import Flask, Response, abort, g, request

from app.extension import lantern

log = logging.getLogger("lantern.request")

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LONGEST_PATH_SHOWN = 200


def init_app(app: Flask) -> None:
    """Have every request begin with an id and a clock, and end with a line and an observation."""
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    g.started = time.perf_counter()
    given = request.headers.get("X-Request-ID", "")
    # An id goes into logs and headers: only what can't be mistaken for anything else is kept.
    g.request_id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
    refusal = request.environ.get("app.worker.refusal")
    if refusal is not None:  # its body is too large or too late: the worker has not read it
        abort(refusal.status, refusal.detail)


def _end(response: Response) -> Response:
    seconds = time.perf_counter() - g.started
    response.headers["X-Request-ID"] = g.request_id
    parts = lantern()
    # Labels are bounded: neither a path nor a method that someone made up becomes one.
    route = request.url_rule.rule if request.url_rule else "unmatched"
    method = request.method if request.method in _METHODS else "other"
    parts.metrics.request_served(method, route, response.status_code, seconds)
    log.info(
        "request",
        extra={
            "request_id": g.request_id,
            "method": request.method,
            "path": request.path[:_LONGEST_PATH_SHOWN],
            "status": response.status_code,
            "milliseconds": round(seconds * 1000, 3),
            "model_version": g.get("model_version"),
            "rows": g.get("rows"),
        },
    )
    return response
