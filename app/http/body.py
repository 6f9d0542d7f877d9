"""Between bytes and objects: JSON bodies in, JSON answers out.

Reads a body within its limits of size and time, checks that it is JSON, and writes answers with
orjson.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import orjson
from flask import Response, request
from flask.json.provider import JSONProvider
from marshmallow import Schema
from werkzeug.exceptions import (
    BadRequest,
    RequestEntityTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

from .body_timeout import ReadDeadline, close_after_answer
from .extension import current_lantern

JSON = "application/json"
_SUFFIXED_JSON = re.compile(r"[^/]+/[^/]+\+json")
LONGEST_ECHO = 200
"""How many characters of what a caller sent an error repeats at most."""


class OrjsonProvider(JSONProvider):
    """Flask's JSON by orjson; non-string keys and unknown types are errors, as they should be."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        return Response(orjson.dumps(self._prepare_response_obj(args, kwargs)), mimetype=JSON)


def read_json_body() -> bytes:
    """Return the body of the request that Flask is handling, which says that it is JSON.

    Raises 415, 413, 408 or 400 (as werkzeug's exceptions) when there is none to be had.
    """
    mimetype = request.mimetype
    if mimetype != JSON and not _SUFFIXED_JSON.fullmatch(mimetype):
        sent = f"not {mimetype[:LONGEST_ECHO]!r}" if mimetype else "and the request names none"
        raise UnsupportedMediaType(f"The Content-Type must be application/json, {sent}.")
    encoding = request.headers.get("Content-Encoding", "").lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMediaType(
            f"A body with Content-Encoding {encoding[:LONGEST_ECHO]!r} is not accepted; "
            "send it uncompressed."
        )
    return _read_body()


def encode(schema: Schema, answer: object) -> bytes:
    """Write ``answer`` as ``schema`` dumps it, and a newline for those at a terminal."""
    return orjson.dumps(schema.dump(answer), option=orjson.OPT_APPEND_NEWLINE)


def reply(schema: Schema, answer: object, status: int = 200) -> Response:
    """Answer with ``answer`` as ``schema`` dumps it."""
    return Response(encode(schema, answer), status, mimetype=JSON)


def reply_encoded(
    body: bytes | Iterable[bytes], headers: Iterable[tuple[str, str]] = ()
) -> Response:
    """Answer with JSON that is written already, or written while it is sent."""
    response = Response(body, mimetype=JSON)
    response.headers.extend(headers)
    return response


def _read_body() -> bytes:
    """Read the whole body from the server, within the limits of size and time.

    Read here and not by Flask, which cuts a chunked body at the limit without a word.
    """
    environ = request.environ
    limit = current_lantern().settings.limits.max_body_bytes
    seconds = current_lantern().settings.server.body_timeout_seconds
    length = request.content_length
    if length is None and not environ.get("wsgi.input_terminated"):
        return b""
    if length is not None and length > limit:
        raise RequestEntityTooLarge
    # Both names are the servers' own: the connection of this request.
    connection = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    with ReadDeadline(connection, seconds) as deadline:
        try:
            body: bytes = environ["wsgi.input"].read(limit + 1 if length is None else length)
        except Exception as error:
            # Chunks that are malformed or end early: each server has exceptions of its own for
            # that, which PEP 3333 doesn't name.
            close_after_answer()
            if not deadline.passed:
                raise BadRequest("The body ended early, or its chunks are malformed.") from error
            body = b""
    if deadline.passed:
        # What comes of the body after this must not be taken for a request of its own.
        close_after_answer()
        raise RequestTimeout(f"The body did not arrive within {seconds:g} seconds.")
    if length is not None and len(body) < length:
        close_after_answer()
        raise BadRequest(f"The body ended after {len(body):,} of {length:,} bytes.")
    if len(body) > limit:
        raise RequestEntityTooLarge
    return body
