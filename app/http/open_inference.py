"""Inference by the Open Inference Protocol, from the bytes of a body to those of an answer.

Like `app.http.handlers`, it knows neither Flask's request nor its response.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple

from ..access.header_names import INFERENCE_HEADER_LENGTH, environ_key
from ..model.errors import AnswerTooLarge, BatchTooLarge, Fault
from ..model.model import Model
from ..model.signature import FEATURES
from ..protocols.open_inference.classifier import tensors_of
from ..protocols.open_inference.errors import InvalidRequest
from ..protocols.open_inference.graph import graph_of
from ..protocols.open_inference.request import decode_request
from ..protocols.open_inference.response import (
    InferenceResponse,
    OutputTensor,
    encode_response,
)
from ..registry.rollout import Rollout
from ..registry.service import ModelService
from ..telemetry import predictions
from ..telemetry.statistics import DECODE, ENCODE, RUN
from .body import JSON, OCTETS
from .context import RequestContext
from .extension import Lantern
from .handlers import Answer, choose, offer_to_shadow

_JSON_BYTES = environ_key(INFERENCE_HEADER_LENGTH)


def infer(
    lantern: Lantern,
    service: ModelService,
    context: RequestContext,
    read_body: Callable[[], bytes],
    version: str | None = None,
) -> Answer:
    """Answer the request for inference in the body, with ``version`` if its path pins one.

    Raises `ModelUnavailable`, `VersionNotLoaded`, what ``read_body`` raises, `NotJson`,
    `InvalidRequest`, `BatchTooLarge`, `AnswerTooLarge` before the network runs, and
    `NonFiniteOutput`; for a model without features `InputsRejected` and `OutputsTooLarge`.
    """
    rollout = service.rollout
    model = choose(lantern, rollout, context, version)
    body = read_body()
    started = perf_counter()
    try:
        return _infer(lantern, rollout, model, context, body)
    except Exception:
        lantern.statistics.failed(model, perf_counter() - started)
        raise


class _Inference(NamedTuple):
    """What a request came to: ``spent`` are the seconds of each phase, `DECODE` and `RUN`."""

    id: str | None
    outputs: Sequence[OutputTensor]
    rows: int
    spent: dict[str, float]
    headers: list[tuple[str, str]]


def _infer(
    lantern: Lantern, rollout: Rollout, model: Model, context: RequestContext, body: bytes
) -> Answer:
    ask = _classify if model.takes_features else _run
    inference = ask(lantern, rollout, model, body, _json_bytes(context))
    begun = perf_counter()
    answer, json_bytes = encode_response(
        InferenceResponse(
            model.name,
            model.version,
            context.request_id if inference.id is None else inference.id,
            inference.outputs,
        )
    )
    context.rows = inference.rows
    spent = inference.spent | {ENCODE: perf_counter() - begun}
    lantern.statistics.succeeded(model, inference.rows, spent)
    form = [("Content-Type", JSON)]
    if json_bytes is not None:
        form = [("Content-Type", OCTETS), (INFERENCE_HEADER_LENGTH, str(json_bytes))]
    return answer, form + inference.headers


def _classify(
    lantern: Lantern, rollout: Rollout, model: Model, body: bytes, json_bytes: int | None
) -> _Inference:
    """Classify the rows of a request, whether they are one tensor or one for each feature."""
    begun = perf_counter()
    tensors = tensors_of(model)
    request = decode_request(body, json_bytes, model.signature.inputs, tensors.max_inputs)
    tensors.check_outputs(request.outputs)
    rows, limits = tensors.count_rows(request.inputs), lantern.settings.limits
    if rows > limits.max_batch_size:
        raise BatchTooLarge(rows, limits.max_batch_size)
    per_row = tensors.values_per_row(request.outputs)
    if rows * per_row > limits.max_answer_values:
        raise AnswerTooLarge(rows, per_row, limits.max_answer_values)
    read = {FEATURES: tensors.read(request.inputs)}
    decoded = perf_counter()
    batch = model.predict_batch(read)
    spent = {DECODE: decoded - begun, RUN: perf_counter() - decoded}
    outputs = tensors.write(request, batch)
    headers = predictions.record_batch(lantern.metrics, model, read, batch)
    offer_to_shadow(lantern, rollout, model, read, batch.answers)
    return _Inference(request.id, outputs, rows, spent, headers)


def _run(
    lantern: Lantern, rollout: Rollout, model: Model, body: bytes, json_bytes: int | None
) -> _Inference:
    """Run a network on the tensors of a request, which count as one row.

    How large its outputs are is known once it has run: what a caller may have of them is bounded,
    and what it may send is by the limit of the body.
    """
    begun = perf_counter()
    tensors = graph_of(model)
    request = decode_request(body, json_bytes, model.signature.inputs, tensors.max_inputs)
    tensors.check_outputs(request.outputs)
    inputs = tensors.read(request.inputs)
    decoded = perf_counter()
    found = model.run(inputs)
    seconds = perf_counter() - decoded
    outputs = tensors.write(request, found, lantern.settings.limits.max_answer_values)
    predictions.record_run(lantern.metrics, model)
    if rollout.mode == "canary":
        lantern.metrics.prediction_timed(model, seconds)
    return _Inference(request.id, outputs, 1, {DECODE: decoded - begun, RUN: seconds}, [])


def _json_bytes(context: RequestContext) -> int | None:
    """Return how many bytes of the body are JSON, if a header says it."""
    text = context.environ.get(_JSON_BYTES)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        detail = f"{INFERENCE_HEADER_LENGTH} must be the number of bytes of the body that are JSON"
        raise InvalidRequest([Fault((), detail)], f"{detail}.")
    return int(text)
