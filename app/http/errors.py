"""Error handlers: every exception becomes a problem document (RFC 9457), here and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Any

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.routing import WebsocketMismatch

from ..access.header_names import RETRY_AFTER
from ..model.code.errors import HandlerFailed, HandlerRefusal
from ..model.errors import (
    MAX_FAULTS,
    AnswerTooLarge,
    BatchTooLarge,
    Fault,
    ImagesTooLarge,
    InputsRejected,
    InvalidSamples,
    ModelUnavailable,
    NonFiniteOutput,
    OutputsTooLarge,
    RowsTooLarge,
    RunTooLarge,
    RunTooLong,
    SamplesTooLarge,
    TakesNoFeatures,
    UnknownModel,
    VersionNotLoaded,
)
from ..model.feature_faults import describe_mismatch
from ..protocols.native.forms import MalformedBody
from ..protocols.native.top import InvalidTop
from ..protocols.open_inference.errors import InvalidRequest
from ..protocols.raw_json import NotJson
from ..worker.malloc import release_freed_memory
from .body import LONGEST_ECHO
from .context import current_context
from .handler_requests import OtherStatus
from .problems import is_open_inference, json_pointer, problem_document

log = logging.getLogger("lantern.errors")


class Draining(Exception):
    """The worker is about to stop, so load balancers should send requests elsewhere."""


def init_app(app: Flask) -> None:
    """Register the handlers of the exceptions that views and Flask raise."""
    app.register_error_handler(NotJson, _not_json)
    app.register_error_handler(ValidationError, _validation_error)
    app.register_error_handler(InvalidRequest, _invalid_request)
    app.register_error_handler(MalformedBody, _malformed)
    app.register_error_handler(InvalidTop, _malformed)
    app.register_error_handler(InvalidSamples, _invalid_samples)
    app.register_error_handler(RowsTooLarge, _rows_too_large)
    app.register_error_handler(ImagesTooLarge, _rows_too_large)
    app.register_error_handler(BatchTooLarge, _batch_too_large)
    app.register_error_handler(AnswerTooLarge, _answer_too_large)
    app.register_error_handler(OutputsTooLarge, _outputs_too_large)
    app.register_error_handler(InputsRejected, _inputs_rejected)
    app.register_error_handler(RunTooLong, _run_too_long)
    app.register_error_handler(RunTooLarge, _run_too_large)
    app.register_error_handler(MemoryError, _out_of_memory)
    app.register_error_handler(TakesNoFeatures, _takes_no_features)
    app.register_error_handler(HandlerRefusal, _handler_refusal)
    app.register_error_handler(HandlerFailed, _handler_failed)
    app.register_error_handler(OtherStatus, _other_status)
    app.register_error_handler(NonFiniteOutput, _non_finite_output)
    app.register_error_handler(ModelUnavailable, _model_unavailable)
    app.register_error_handler(UnknownModel, _not_there)
    app.register_error_handler(VersionNotLoaded, _not_there)
    app.register_error_handler(Draining, _draining)
    app.register_error_handler(HTTPException, _http_exception)
    app.register_error_handler(InternalServerError, _unexpected)
    app.register_error_handler(Exception, _unexpected)


def problem(status: int, detail: str, *, kind: str = "", faults: Iterable[Fault] = ()) -> Response:
    """Return a problem document as the response to the current request."""
    context = current_context()
    body, media_type = problem_document(status, detail, context=context, kind=kind, faults=faults)
    return Response(body, status, mimetype=media_type)


def _not_json(error: NotJson) -> Response:
    return problem(400, f"The body is not JSON: {str(error)[:LONGEST_ECHO]}.")


def _validation_error(error: ValidationError) -> Response:
    faults = list(islice(_faults(error.messages, ()), MAX_FAULTS))
    if any(fault.mismatch for fault in faults):
        return problem(400, describe_mismatch(faults), kind="feature-mismatch", faults=faults)
    return problem(422, _sentence(faults), kind="invalid-value", faults=faults)


def _sentence(faults: Sequence[Fault]) -> str:
    """Return the first of ``faults`` in words, and how many more there are."""
    first = faults[0]
    place = json_pointer(first.path) or "The body"
    more = f" ({len(faults) - 1} more in errors)" if len(faults) > 1 else ""
    said = f"{place} {first.detail}{more}"
    return said if said.endswith("?") else f"{said}."


def _faults(messages: Any, path: tuple[str | int, ...]) -> Iterator[Fault]:
    """Yield the faults in marshmallow's nested messages: ours, or made from its sentences."""
    if isinstance(messages, dict):
        for key, inner in sorted(messages.items()):  # marshmallow's order is that of a set
            yield from _faults(inner, path if key == "_schema" else (*path, key))
    else:
        for message in messages:
            if isinstance(message, Fault):
                yield Fault((*path, *message.path), message.detail, message.mismatch)
            else:
                yield Fault(path, str(message).rstrip("."))


def _malformed(error: MalformedBody | InvalidTop) -> Response:
    return problem(400, str(error), kind="invalid-request")


def _invalid_samples(error: InvalidSamples) -> Response:
    faults = [Fault(_place_of_sample(*fault.path), fault.detail) for fault in error.faults]
    detail = _sentence(faults) if _is_batch() else str(error)
    if isinstance(error, SamplesTooLarge):
        return problem(413, detail, kind="sample-too-large", faults=faults)
    return problem(422, detail, kind="invalid-value", faults=faults)


def _place_of_sample(index: str | int, *member: str | int) -> tuple[str | int, ...]:
    """Return where a sample, or a member of it, is in the body of the current request."""
    if not _is_batch():
        return member
    return (_rows_member(), index, *member) if request.is_json else (*member, index)


def _is_batch() -> bool:
    return request.path.rstrip("/").endswith("/batch")


def _rows_too_large(error: RowsTooLarge | ImagesTooLarge) -> Response:
    return problem(413, str(error), kind="batch-too-large")


def _invalid_request(error: InvalidRequest) -> Response:
    sentence = error.sentence or _sentence(error.faults)
    return problem(400, sentence, kind="invalid-request", faults=error.faults)


def _rows_member() -> str:
    """Return the member of the current request's JSON that has its rows."""
    return "inputs" if is_open_inference(request.path) else "samples"


def _batch_too_large(error: BatchTooLarge) -> Response:
    detail = f"has {error.rows:,} rows, which exceeds the limit of {error.limit:,}"
    fault = Fault((_rows_member(),), detail)
    return problem(413, str(error), kind="batch-too-large", faults=[fault])


def _answer_too_large(error: AnswerTooLarge) -> Response:
    detail = f"has {error.rows:,} rows; send at most {error.largest:,} in one request"
    fault = Fault((_rows_member(),), detail)
    return problem(413, str(error), kind="answer-too-large", faults=[fault])


def _outputs_too_large(error: OutputsTooLarge) -> Response:
    return problem(413, str(error), kind="answer-too-large")


def _inputs_rejected(error: InputsRejected) -> Response:
    return problem(400, str(error), kind="invalid-request")


def _run_too_long(error: RunTooLong) -> Response:
    # What the caller sent takes too long. It is no 503, which clients would repeat.
    return problem(413, str(error), kind="run-too-long")


def _run_too_large(error: RunTooLarge) -> Response:
    release_freed_memory()  # what the run had until then
    return problem(413, str(error), kind="run-too-large")


def _out_of_memory(error: MemoryError) -> Response:
    answer = problem(503, "The worker is out of memory. Retry later.", kind="out-of-memory")
    answer.headers[RETRY_AFTER] = "1"  # other requests have it, whose runs end
    return answer


def _takes_no_features(error: TakesNoFeatures) -> Response:
    return problem(422, str(error), kind="takes-no-features")


def _non_finite_output(error: NonFiniteOutput) -> Response:
    paths: Iterable[tuple[str | int, ...]] = (
        [error.path] if error.rows is None else map(_place_of_sample, error.rows)
    )
    status = 422
    if is_open_inference(request.path):  # which has no 422
        paths, status = [("inputs",)], 400
    faults = [Fault(path, "the model's output is not finite") for path in islice(paths, MAX_FAULTS)]
    return problem(status, str(error), kind="non-finite-output", faults=faults)


def _model_unavailable(error: ModelUnavailable) -> Response:
    return problem(503, f"No model is loaded. {error}", kind="model-unavailable")


def _not_there(error: UnknownModel | VersionNotLoaded) -> Response:
    kind = "unknown-model" if isinstance(error, UnknownModel) else "version-not-loaded"
    return problem(404, str(error), kind=kind)


def _handler_refusal(error: HandlerRefusal) -> Response:
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log_error("the handler of a model answered an error", error)
    faults = _faults_of_request(error, str(error))
    return problem(error.status, str(error), kind="handler", faults=faults)


def _handler_failed(error: HandlerFailed) -> Response:
    _log_error("the handler of a model failed", error, reason=error.reason)
    detail = f"{error} {_to_report()}"
    return problem(500, detail, kind="handler-failed", faults=_faults_of_request(error, detail))


def _other_status(error: OtherStatus) -> Response:
    answer = error.answer
    return Response(answer.body, answer.status, content_type=answer.content_type)


def _faults_of_request(error: HandlerRefusal | HandlerFailed, detail: str) -> list[Fault]:
    return [] if error.index is None else [Fault((_rows_member(), error.index), detail)]


def _draining(error: Draining) -> Response:
    answer = problem(503, "The worker is shutting down. Retry the request.", kind="draining")
    answer.headers[RETRY_AFTER] = "1"  # another worker, or its successor, is there by then
    return answer


def _http_exception(error: HTTPException) -> ResponseReturnValue:
    status = error.code or 500
    if error.response is not None or status < 400:  # a response, raised on purpose
        return error.get_response(request.environ)
    detail = error.description or HTTPStatus(status).phrase
    if isinstance(error, WebsocketMismatch):
        detail = "WebSockets are not supported; send the request without Upgrade."
    elif status == 404:
        detail = f"Not found: {current_context().head.path[:LONGEST_ECHO]}"
    elif status == 405:
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or []))
        detail = f"The method {request.method[:20]} is not allowed for this URL; use {allowed}."
    answer = problem(status, detail)
    for name, value in error.get_headers(request.environ):
        if name.lower() not in ("content-type", "content-length"):
            answer.headers[name] = value  # Allow, Retry-After
    return answer


def _unexpected(error: Exception) -> Response:
    original = error.original_exception if isinstance(error, InternalServerError) else error
    _log_error("unexpected error", original or error)
    return problem(500, f"Internal server error. {_to_report()}")


def _to_report() -> str:
    """Return how to report an error. It has the id itself: TorchServe's form has no member for it,
    and some clients show nothing but the message.
    """
    return f"To report it, quote the request id {current_context().request_id}."


def _log_error(event: str, error: BaseException, **more: str) -> None:
    context = current_context()
    extra = {"request_id": context.request_id, "path": context.head.path, **more}
    log.error(event, exc_info=error, extra=extra)
