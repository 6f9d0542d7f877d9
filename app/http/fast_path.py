"""The fast path: predictions without Flask, whose dispatch costs more than a prediction.

It serves only plain predictions, and passes every other request on to Flask unchanged, as one whose
Content-Type the model doesn't take. If a prediction fails, Flask gets the exception too, so that
error responses are made in one place and no work is done twice. Both ways share the request
context, the handlers, the log and the metrics. ``server.fast_path = false`` turns it off.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from ..access.header_names import REQUEST_ID
from ..protocols.native.media_types import MediaTypes
from .context import CONTEXT, RequestContext, StreamedResponse
from .extension import Lantern
from .headers import PLAIN
from .routes import RouteTable

_PLAIN_HOST = re.compile(r"[0-9A-Za-z-]{1,63}(\.[0-9A-Za-z-]{1,63}){0,9}(:[0-9]{1,5})?")

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class _OtherMediaType(Exception):
    """The body is of a media type that the model doesn't take."""


class FastPath:
    """WSGI middleware that serves plain predictions, and passes other requests on."""

    def __init__(self, application: Application, lantern: Lantern, table: RouteTable) -> None:
        self._application = application
        self._lantern = lantern
        self._table = table

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        found = self._table.find(environ.get("PATH_INFO", ""))
        if (
            found is None
            or found.route.handler is None
            or environ["REQUEST_METHOD"] != "POST"
            or found.is_pinned
            or not _is_plain_host(environ.get("HTTP_HOST", ""))
            or "HTTP_CONTENT_ENCODING" in environ
            or "HTTP_TRANSFER_ENCODING" in environ
            or "HTTP_UPGRADE" in environ  # of which werkzeug has rules of its own
        ):
            return self._application(environ, start_response)
        stream = environ["wsgi.input"]
        # A body that has arrived; reading another kind of stream may block.
        if type(stream) is not io.BytesIO or stream.tell():
            return self._application(environ, start_response)
        body = stream.getvalue()
        size = len(body)
        lantern = self._lantern
        if (
            environ.get("CONTENT_LENGTH") != str(size)
            or size > lantern.settings.limits.max_body_bytes
        ):
            return self._application(environ, start_response)
        context: RequestContext = environ[CONTEXT]
        context.route = found.rule
        media_type = _media_type(environ.get("CONTENT_TYPE", ""))

        def read_body(accepted: MediaTypes) -> bytes:
            if media_type not in accepted and not (found.route.may_lack_type and not media_type):
                raise _OtherMediaType
            return body

        try:
            answer, headers = found.route.handler(lantern, found.service, context, read_body)
        except _OtherMediaType:  # Flask says which it takes
            answer = headers = None
        except Exception as error:
            context.failure = error
            answer = headers = None
        # Not in the except clause: exceptions of Flask would get this one as their context.
        if headers is None:
            return self._application(environ, start_response)
        headers = [*headers, *PLAIN, (REQUEST_ID, context.request_id)]
        if isinstance(answer, StreamedResponse):
            start_response("200 OK", headers)
            return answer
        headers.insert(1, ("Content-Length", str(len(answer))))
        start_response("200 OK", headers)
        context.end(200, lantern.metrics)
        return [answer]


@lru_cache(maxsize=256)
def _media_type(content_type: str) -> str:
    """Return a Content-Type without its parameters, in lower case. Cached like the host."""
    return content_type.partition(";")[0].strip().lower()


@lru_cache(maxsize=256)
def _is_plain_host(host: str) -> bool:
    """Return True if Flask is certain to accept ``host``. Cached, because clients repeat it."""
    return _PLAIN_HOST.fullmatch(host) is not None
