"""Every failure becomes one problem document (RFC 9457); this module alone knows how."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from itertools import islice
from typing import Any

from flask import Flask, Response, redirect, request
from flask.typing import ResponseReturnValue
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException, InternalServerError, RequestEntityTooLarge
from werkzeug.routing import RequestRedirect

from ..access.header_names import RETRY_AFTER
from ..model.errors import (
    MAX_FAULTS,
    AnswerTooLarge,
    BatchTooLarge,
    Fault,
    ModelUnavailable,
    NonFiniteOutput,
    UnknownModel,
    VersionNotLoaded,
)
from ..model.features import describe_mismatch
from ..protocols.raw_json import NotJson
from .body import LONGEST_ECHO
from .context import current_context
from .extension import current_lantern
from .problems import PROBLEM_JSON, json_pointer, problem_document

log = logging.getLogger("lantern.errors")

_ORIGIN = re.compile(r"\A[a-z]+://[^/]*/*")
"""What stands before the path of a URL; with all slashes, of which two would begin a host."""


class Draining(Exception):
    """This worker is about to stop and takes no new work."""


def init_app(app: Flask) -> None:
    """Turn every exception that a view or Flask raises into a problem document."""
    app.before_request(_redirect)
    app.register_error_handler(NotJson, _not_json)
    app.register_error_handler(ValidationError, _validation_error)
    app.register_error_handler(BatchTooLarge, _batch_too_large)
    app.register_error_handler(AnswerTooLarge, _answer_too_large)
    app.register_error_handler(NonFiniteOutput, _non_finite_output)
    app.register_error_handler(ModelUnavailable, _model_unavailable)
    app.register_error_handler(UnknownModel, _not_there)
    app.register_error_handler(VersionNotLoaded, _not_there)
    app.register_error_handler(Draining, _draining)
    app.register_error_handler(HTTPException, _http_exception)
    app.register_error_handler(InternalServerError, _unexpected)
    app.register_error_handler(Exception, _unexpected)


def problem(status: int, detail: str, *, kind: str = "", faults: Iterable[Fault] = ()) -> Response:
    """Answer the request that Flask is handling with a problem document."""
    context = current_context()
    body = problem_document(
        status, detail, path=context.path, request_id=context.request_id, kind=kind, faults=faults
    )
    return Response(body, status, mimetype=PROBLEM_JSON)


def _redirect() -> ResponseReturnValue | None:
    """Redirect where werkzeug would, and not to scheme and host: the last proxy may have others."""
    routing = request.routing_exception
    if not isinstance(routing, RequestRedirect):
        return None
    return redirect(_ORIGIN.sub("/", routing.new_url), routing.code)


def _not_json(error: NotJson) -> Response:
    return problem(400, f"The body is not JSON: {str(error)[:LONGEST_ECHO]}.")


def _validation_error(error: ValidationError) -> Response:
    faults = list(islice(_faults(error.messages, ()), MAX_FAULTS))
    if any(fault.mismatch for fault in faults):
        return problem(400, describe_mismatch(faults), kind="feature-mismatch", faults=faults)
    first = faults[0]
    place = json_pointer(first.path) or "The body"
    more = f" ({len(faults) - 1} more in errors)" if len(faults) > 1 else ""
    return problem(422, f"{place} {first.detail}{more}.", kind="invalid-value", faults=faults)


def _faults(messages: Any, path: tuple[str | int, ...]) -> Iterator[Fault]:
    """Walk through marshmallow's nested messages, whose leaves are ours or sentences of its own."""
    if isinstance(messages, dict):
        for key, inner in sorted(messages.items()):  # marshmallow's order is that of a set
            yield from _faults(inner, path if key == "_schema" else (*path, key))
    else:
        for message in messages:
            if isinstance(message, Fault):
                yield Fault((*path, *message.path), message.detail, message.mismatch)
            else:
                yield Fault(path, str(message).rstrip("."))


def _batch_too_large(error: BatchTooLarge) -> Response:
    fault = Fault(("samples",), f"has {error.rows} rows, at most {error.limit} are accepted")
    return problem(413, str(error), kind="batch-too-large", faults=[fault])


def _answer_too_large(error: AnswerTooLarge) -> Response:
    detail = f"has {error.rows} rows; the answer to at most {error.largest} is small enough"
    return problem(413, str(error), kind="answer-too-large", faults=[Fault(("samples",), detail)])


def _non_finite_output(error: NonFiniteOutput) -> Response:
    paths: Iterable[tuple[str | int, ...]] = (
        [("features",)] if error.rows is None else (("samples", row) for row in error.rows)
    )
    faults = [
        Fault(path, "the model gives no finite probabilities for it")
        for path in islice(paths, MAX_FAULTS)
    ]
    return problem(422, str(error), kind="non-finite-output", faults=faults)


def _model_unavailable(error: ModelUnavailable) -> Response:
    return problem(503, f"No model is loaded. {error}", kind="model-unavailable")


def _not_there(error: UnknownModel | VersionNotLoaded) -> Response:
    kind = "unknown-model" if isinstance(error, UnknownModel) else "version-not-loaded"
    return problem(404, str(error), kind=kind)


def _draining(error: Draining) -> Response:
    answer = problem(503, "This worker is shutting down.", kind="draining")
    answer.headers[RETRY_AFTER] = "1"  # another worker, or its successor, is there by then
    return answer


def _http_exception(error: HTTPException) -> ResponseReturnValue:
    status = error.code or 500
    if error.response is not None or status < 400:  # made on purpose
        return error.get_response(request.environ)
    detail = error.description or HTTPStatus(status).phrase
    if isinstance(error, RequestEntityTooLarge):
        limit = current_lantern().settings.limits.max_body_bytes
        detail = f"The body is larger than the {limit:,} bytes that are accepted."
    elif status == 404:
        detail = f"There is nothing at {current_context().path[:LONGEST_ECHO]}."
    elif status == 405:
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or []))
        detail = f"{request.method[:20]} is not allowed here; allowed: {allowed}."
    answer = problem(status, detail)
    for name, value in error.get_headers(request.environ):
        if name.lower() not in ("content-type", "content-length"):
            answer.headers[name] = value  # Allow, Retry-After
    return answer


def _unexpected(error: Exception) -> Response:
    original = error.original_exception if isinstance(error, InternalServerError) else error
    context = current_context()
    log.error(
        "unexpected error",
        exc_info=original or error,
        extra={"request_id": context.request_id, "path": context.path},
    )
    return problem(500, "Internal server error. Quote the request_id to report it.")
