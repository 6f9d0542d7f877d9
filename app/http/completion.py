"""Completion: the middleware around Flask, which completes each of its responses.

It adds the headers that every response has, and ends the request's context. That is after all hooks
and still within Flask's context; and headers are added to a list, as Flask's cost more to set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..access.cors import Headers
from ..access.header_names import REQUEST_ID
from ..protocols.native.media_types import media_type_of
from ..telemetry.metrics import Metrics
from .context import CONTEXT, RequestContext
from .headers import headers_for

_REQUEST_ID = REQUEST_ID.lower()

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class CompletionMiddleware:
    """WSGI middleware that completes the responses of ``application``."""

    def __init__(self, application: Application, metrics: Metrics) -> None:
        self._application = application
        self._metrics = metrics

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        context: RequestContext = environ[CONTEXT]

        def start(status: str, headers: Headers, *exc_info: Any) -> Any:
            _complete(context, headers)
            try:
                write = start_response(status, headers, *exc_info)
            except BaseException:  # the server refuses a header of a hook, and answers itself
                context.end(500, self._metrics)
                raise
            if not context.is_streamed:
                context.end(int(status[:3]), self._metrics)
            return write

        return self._application(environ, start)


def _complete(context: RequestContext, headers: Headers) -> None:
    """Add those headers that are missing; the list is the server's (PEP 3333)."""
    given = {name.lower(): value for name, value in headers}
    for header in headers_for(context.method, media_type_of(given.get("content-type", ""))):
        if header[0].lower() not in given:
            headers.append(header)
    if _REQUEST_ID in given:
        headers[:] = [header for header in headers if header[0].lower() != _REQUEST_ID]
    headers.append((REQUEST_ID, context.request_id))
