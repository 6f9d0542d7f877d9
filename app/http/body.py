"""Bodies: read from requests within limits of size and time, and JSON written with orjson."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from flask import Request
from flask.json.provider import JSONProvider
from marshmallow import Schema
from werkzeug.datastructures import Headers
from werkzeug.exceptions import (
    BadRequest,
    RequestEntityTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

from ..protocols.native.media_types import JSON, MediaTypes, media_type_of
from ..settings import Settings
from ..worker.contract import Environ
from .body_timeout import ReadDeadline, close_after_answer
from .compression import ENCODINGS, NotInflatable, TooLarge, inflate
from .response import Response

OCTETS = "application/octet-stream"
TENSORS = MediaTypes((JSON, OCTETS))
"""The media types of tensors."""
_URLENCODED = "application/x-www-form-urlencoded"
_OF_CURL = " curl sends that one unless it is given another, as by -H 'Content-Type: {}'."
LONGEST_ECHO = 200
"""The most characters of a caller's input that an error message repeats."""


class OrjsonProvider(JSONProvider):
    """Flask's JSON by orjson: keys that are not strings, and unknown types, are errors."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        return Response(orjson.dumps(self._prepare_response_obj(args, kwargs)), mimetype=JSON)


def read_body(request: Request, settings: Settings, accepted: MediaTypes) -> bytes:
    """Return the body of a request, which must be of an ``accepted`` media type.

    Raises werkzeug's exceptions for 415, 413, 408 and 400.
    """
    _check_type(request, accepted)
    _check_encoding(request)
    return _read_body(request, settings)


def read_tensor_body(request: Request, settings: Settings, accepted: MediaTypes = TENSORS) -> bytes:
    """Return the body of a request: JSON, tensors in binary, or both. It is inflated if
    it is compressed.

    Its Content-Type may be one of those ``accepted`` or missing, whatever it holds: clients differ.
    Raises as `read_body` does.
    """
    if request.mimetype:
        _check_type(request, accepted)
    encoding = _check_encoding(request, ENCODINGS)
    body = _read_body(request, settings)
    if encoding is None:
        return body
    limit = settings.limits.max_body_bytes
    try:
        return inflate(body, encoding, limit)
    except NotInflatable as error:
        raise BadRequest(f"The body can't be inflated: {error}.") from error
    except TooLarge as error:
        raise _too_large(limit) from error


def encode(schema: Schema, answer: object) -> bytes:
    """Return ``answer``, dumped by ``schema``, as JSON with a newline at its end."""
    return orjson.dumps(schema.dump(answer), option=orjson.OPT_APPEND_NEWLINE)


def reply(schema: Schema, answer: object, status: int = 200) -> Response:
    """Return a response with ``answer``, dumped by ``schema``, as JSON."""
    return reply_encoded(encode(schema, answer), status)


def reply_encoded(body: bytes, status: int = 200) -> Response:
    """Return a response whose JSON is encoded already."""
    fields = Headers()
    # At once, because werkzeug looks at all fields for each that is set by its name.
    fields[:] = [("Content-Type", JSON), ("Content-Length", str(len(body)))]
    return Response([body], status, headers=fields)


def reply_answer(body: bytes | Iterable[bytes], headers: Sequence[tuple[str, str]]) -> Response:
    """Return a response that is encoded already, or is encoded while it is sent.

    The first of ``headers`` is its Content-Type.
    """
    fields = Headers()
    if isinstance(body, bytes):
        first, *more = headers
        headers = [first, ("Content-Length", str(len(body))), *more]
        body = [body]
    # At once, because werkzeug looks at all fields for each that is set by its name.
    fields[:] = headers
    return Response(body, headers=fields)


def _check_type(request: Request, accepted: MediaTypes) -> None:
    """Raise `UnsupportedMediaType` unless the body is declared as one of ``accepted``."""
    media_type = media_type_of(request.environ.get("CONTENT_TYPE", ""))
    if media_type not in accepted:
        sent = f"not {media_type[:LONGEST_ECHO]!r}" if media_type else "and it is missing"
        hint = _OF_CURL.format(accepted.example) if media_type == _URLENCODED else ""
        raise UnsupportedMediaType(f"The Content-Type must be {accepted}, {sent}.{hint}")


def _check_encoding(request: Request, accepted: Sequence[str] = ()) -> str | None:
    """Return the encoding in which the body is compressed, None if it isn't.

    Raises `UnsupportedMediaType` for one that is not ``accepted``.
    """
    encoding: str = request.environ.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding in accepted:
        return encoding
    forms = " or ".join([*(f"as {each}" for each in accepted[:1]), *accepted[1:], "uncompressed"])
    raise UnsupportedMediaType(
        f"The Content-Encoding {encoding[:LONGEST_ECHO]!r} is not supported; send it {forms}."
    )


def arrived_body(environ: Environ, max_bytes: int) -> bytes | None:
    """Return the body of a request if it has arrived as a whole, and as its head declares it.

    Reading another kind of stream may block. The stream stays at its place: hooks may read it, too.
    """
    stream = environ["wsgi.input"]
    if type(stream) is not io.BytesIO or "HTTP_TRANSFER_ENCODING" in environ:
        return None
    body = stream.getvalue()
    size = len(body)
    return body if environ.get("CONTENT_LENGTH") == str(size) and size <= max_bytes else None


def _read_body(request: Request, settings: Settings) -> bytes:
    """Return the whole body, read within the limits of size and time.

    Flask would silently cut a chunked body at the limit.
    """
    environ = request.environ
    limit = settings.limits.max_body_bytes
    arrived = arrived_body(environ, limit)
    if arrived is not None:
        return arrived
    if "stream" in vars(request):  # a hook has begun to read it; what it read is kept
        return _within(limit, request.get_data())
    seconds = settings.server.body_timeout_seconds
    length = request.content_length
    if length is None and not environ.get("wsgi.input_terminated"):
        return b""
    if length is not None and length > limit:
        raise _too_large(limit)
    # Gunicorn's and werkzeug's names for the connection of this request.
    connection = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    with ReadDeadline(connection, seconds) as deadline:
        try:
            body: bytes = environ["wsgi.input"].read(limit + 1 if length is None else length)
        except MemoryError:  # runs of other requests have it
            close_after_answer()
            raise
        except Exception as error:
            # Each server has its own exceptions for chunks that are malformed or end early: PEP
            # 3333 names none.
            close_after_answer()
            if not deadline.passed:
                raise BadRequest("The body ended early, or its chunks are malformed.") from error
            body = b""
    if deadline.passed:
        # The rest of the body must not be parsed as another request.
        close_after_answer()
        raise RequestTimeout(
            f"The body did not arrive within {seconds:g} seconds (server.body_timeout_seconds)."
        )
    if length is not None and len(body) < length:
        close_after_answer()
        raise BadRequest(f"The body ended after {len(body):,} of {length:,} bytes.")
    environ["wsgi.input"] = io.BytesIO(_within(limit, body))  # for hooks after the view
    return body


def _within(limit: int, body: bytes) -> bytes:
    """Return ``body``; raise `RequestEntityTooLarge` if it exceeds the limit."""
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> RequestEntityTooLarge:
    return RequestEntityTooLarge(
        f"The body exceeds the limit of {limit:,} bytes (limits.max_body_bytes)."
    )
