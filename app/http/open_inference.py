"""Inference by the Open Inference Protocol, from the bytes of a body to those of an answer.

Like `app.http.handlers`, it knows neither Flask's request nor its response.
"""

from __future__ import annotations

from time import perf_counter

from ..access.header_names import INFERENCE_HEADER_LENGTH, environ_key
from ..model.errors import BatchTooLarge, Fault
from ..model.model import Model
from ..protocols.native.media_types import JSON, ReadBody
from ..protocols.open_inference.errors import InvalidRequest
from ..protocols.open_inference.model_tensors import tensors_of
from ..protocols.open_inference.response import InferenceResponse, encode_response
from ..registry.rollout import Rollout
from ..registry.service import ModelService
from ..telemetry.predictions import record_batch, record_run
from .body import OCTETS, TENSORS
from .context import RequestContext
from .extension import Lantern
from .handlers import Answer, choose, offer_to_shadow

_JSON_BYTES = environ_key(INFERENCE_HEADER_LENGTH)


def infer(
    lantern: Lantern,
    service: ModelService,
    context: RequestContext,
    read_body: ReadBody,
    version: str | None = None,
) -> Answer:
    """Answer the request for inference in the body, with ``version`` if its path pins one.

    Raises `ModelUnavailable`, `VersionNotLoaded`, what ``read_body`` raises, `NotJson`,
    `InvalidRequest`, `BatchTooLarge`, `AnswerTooLarge` before the network runs, `InputsRejected`,
    `NonFiniteOutput`, and `OutputsTooLarge` for outputs whose size is known once it has run.
    """
    rollout = service.rollout
    model = choose(lantern, rollout, context, version)
    body = read_body(TENSORS)
    started = perf_counter()
    try:
        return _infer(lantern, rollout, model, context, body)
    except Exception:
        lantern.statistics.failed(model, perf_counter() - started)
        raise


def _infer(
    lantern: Lantern, rollout: Rollout, model: Model, context: RequestContext, body: bytes
) -> Answer:
    begun = perf_counter()
    tensors, limits = tensors_of(model), lantern.settings.limits
    request = tensors.decode(body, _json_bytes(context))
    requested = tensors.outputs.requested(request)
    rows = tensors.count_rows(request)
    if rows > limits.max_batch_size:
        raise BatchTooLarge(rows, limits.max_batch_size)
    tensors.outputs.check_size(requested, rows, limits.max_answer_values)
    inputs = tensors.read(request)
    decoded = perf_counter()
    found = model.run_rows(inputs)
    predictions = model.predictions_of(found) if model.takes_features else None
    if predictions is not None:
        found = tensors.outputs.of_predictions(found, predictions, requested)
    ran = perf_counter()
    outputs = tensors.outputs.write(requested, found, limits.max_answer_values)
    id_ = context.request_id if request.id is None else request.id
    answer, json_bytes = encode_response(InferenceResponse(model.name, model.version, id_, outputs))
    ended = perf_counter()
    context.rows = rows
    lantern.statistics.succeeded(model, rows, decoded - begun, ran - decoded, ended - ran)
    form = [("Content-Type", JSON)]
    if json_bytes is not None:
        form = [("Content-Type", OCTETS), (INFERENCE_HEADER_LENGTH, str(json_bytes))]
    if predictions is not None:
        offer_to_shadow(lantern, rollout, model, inputs, predictions)
        return answer, form + record_batch(lantern.metrics, model, inputs, predictions)
    record_run(lantern.metrics, model, rows, model.label_counts(found))
    if rollout.mode == "canary":
        lantern.metrics.prediction_timed(model, ran - decoded)
    return answer, form


def _json_bytes(context: RequestContext) -> int | None:
    """Return how many bytes of the body are JSON, if a header says it."""
    text = context.environ.get(_JSON_BYTES)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        detail = f"{INFERENCE_HEADER_LENGTH} must be the number of bytes of the body that are JSON"
        raise InvalidRequest([Fault((), detail)], f"{detail}.")
    return int(text)
