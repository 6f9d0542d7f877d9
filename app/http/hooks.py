"""Lantern's own hook of Flask, in front of those that an application registers in addition.

There is one and not more, because each costs in every request; what follows the view is done by
`app.http.completion`.
"""

from __future__ import annotations

import re

from flask import Flask, abort, redirect
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.routing import RequestRedirect

from ..worker.contract import REJECTION, Environ, rejection
from .context import CONTEXT, RequestContext, current_request

_ORIGIN = re.compile(r"\A[a-z]+://[^/]*/*")
"""The part of a URL before its path, with all slashes: two of them would begin a host."""


def init_app(app: Flask) -> None:
    """Register the hook; call it before anything else registers one."""
    app.before_request(_begin)


def _begin() -> ResponseReturnValue | None:
    """Set in the context what Flask knows of the request; reject or redirect it if need be."""
    request = current_request()
    context: RequestContext = request.environ[CONTEXT]
    context.method = request.method
    if request.url_rule is not None:
        context.route = request.url_rule.rule
    if REJECTION in request.environ:
        _reject(request.environ)
    if isinstance(request.routing_exception, RequestRedirect):
        # As werkzeug does, but without scheme and host, which a proxy may have changed.
        routing = request.routing_exception
        return redirect(_ORIGIN.sub("/", routing.new_url), routing.code)
    return None


def _reject(environ: Environ) -> None:
    """Reject a request that is too large, too late or malformed: the worker has not read it."""
    rejected = rejection(environ)
    if rejected.retry_after is not None:
        raise ServiceUnavailable(rejected.detail, retry_after=rejected.retry_after)
    abort(rejected.status, rejected.detail)
