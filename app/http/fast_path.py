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
from ..protocols.native.media_types import MediaTypes, media_type_of
from .context import CONTEXT, RequestContext, StreamedResponse
from .extension import Lantern
from .handlers import Answer
from .headers import PLAIN
from .routes import Found, Handler, RouteTable

_PLAIN_HOST = re.compile(r"[0-9A-Za-z-]{1,63}(\.[0-9A-Za-z-]{1,63}){0,9}(:[0-9]{1,5})?")

_LENGTH = re.compile(r"0|[1-9][0-9]{0,18}")

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class _OtherMediaType(Exception):
    """The body is of a media type that the model doesn't take."""


class Plain:
    """A plain prediction, as the head of its request says: for the route that was ``found``, whose
    ``handler`` makes it of a body of ``size`` bytes and of ``media_type``. The types in which that
    was last looked for, and found, are ``accepted``.
    """

    __slots__ = ("accepted", "found", "handler", "media_type", "size")

    def __init__(self, found: Found, handler: Handler, size: int, media_type: str) -> None:
        self.found = found
        self.handler = handler
        self.size = size
        self.media_type = media_type
        self.accepted: MediaTypes | None = None

    def check(self, accepted: MediaTypes) -> None:
        """Raise `_OtherMediaType` unless the body is of one of the types ``accepted``."""
        may_lack_type = self.found.route.may_lack_type and not self.media_type
        if self.media_type not in accepted and not may_lack_type:
            raise _OtherMediaType
        self.accepted = accepted


class FastPath:
    """WSGI middleware that serves plain predictions, and passes other requests on."""

    def __init__(self, application: Application, lantern: Lantern, table: RouteTable) -> None:
        self._application = application
        self._lantern = lantern
        self._table = table

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        context: RequestContext = environ[CONTEXT]
        answer = context.answer if context.is_tried else self._try(environ, context)
        # Not where it was tried: exceptions of Flask would get that one as their context.
        if answer is None:
            return self._application(environ, start_response)
        context.answer = None
        body, headers = answer
        request_id = (REQUEST_ID, context.request_id)
        if isinstance(body, StreamedResponse):
            start_response("200 OK", [*headers, *PLAIN, request_id])
            return body
        content_type, *more = headers
        length = ("Content-Length", str(len(body)))
        start_response("200 OK", [content_type, length, *more, *PLAIN, request_id])
        context.end(200, self._lantern.metrics)
        return [body]

    def _try(self, environ: dict[str, Any], context: RequestContext) -> Answer | None:
        """Return the answer to a plain prediction; None for any other request."""
        plain: Plain | None = context.head.plain
        if plain is None:
            # Looked for again while there is none: the model of a path may be known later.
            plain = context.head.plain = self.find(environ)
        stream = environ["wsgi.input"]
        # A body that has arrived; reading another kind of stream may block.
        if plain is None or type(stream) is not io.BytesIO or stream.tell():
            return None
        body = stream.getvalue()
        return self.answer(plain, context, body) if len(body) == plain.size else None

    def answer(self, plain: Plain, context: RequestContext, body: bytes) -> Answer | None:
        """Return the answer to a prediction with the ``body``; None if Flask has to answer, which
        finds in the ``context`` why.
        """
        context.is_tried = True
        context.route = plain.found.rule

        def read_body(accepted: MediaTypes) -> bytes:
            if accepted is not plain.accepted:
                plain.check(accepted)
            return body

        try:
            answer: Answer = plain.handler(self._lantern, plain.found.service, context, read_body)
        except _OtherMediaType:  # Flask says which it takes
            return None
        except Exception as error:
            context.failure = error
            return None
        return answer

    def find(self, environ: dict[str, Any]) -> Plain | None:
        """Return what the head in ``environ`` says, or None if it is not that of a plain
        prediction.
        """
        found = self._table.find(environ.get("PATH_INFO", ""))
        length = environ.get("CONTENT_LENGTH", "")
        if (
            found is None
            or found.route.handler is None
            or environ["REQUEST_METHOD"] != "POST"
            or found.is_pinned
            or not _is_plain_host(environ.get("HTTP_HOST", ""))
            or "HTTP_CONTENT_ENCODING" in environ
            or "HTTP_TRANSFER_ENCODING" in environ
            or "HTTP_UPGRADE" in environ  # of which werkzeug has rules of its own
            or not _LENGTH.fullmatch(length)
            or int(length) > self._lantern.settings.limits.max_body_bytes
        ):
            return None
        media_type = media_type_of(environ.get("CONTENT_TYPE", ""))
        return Plain(found, found.route.handler, int(length), media_type)


@lru_cache(maxsize=256)
def _is_plain_host(host: str) -> bool:
    """Return True if Flask is certain to accept ``host``. Cached, because clients repeat it."""
    return _PLAIN_HOST.fullmatch(host) is not None
