"""Prediction handlers: from the bytes of a request body to those of a response body.

Flask's views and the fast path call the same two functions, so that both validate, predict, log and
count alike. The handlers use neither Flask's request nor its response.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter

from ..model.errors import AnswerTooLarge, NonFiniteOutput
from ..model.model import Model
from ..model.predictions import Batch, Prediction
from ..model.signature import Tensors, row_count
from ..protocols.native.media import MediaBody
from ..protocols.native.media_types import JSON, ReadBody
from ..protocols.native.predictions import Parts
from ..protocols.native.schemas import bodies_of
from ..protocols.native.top import TopAnswers, requested_top
from ..registry.rollout import Rollout
from ..registry.service import ModelService
from ..settings import LimitSettings
from ..telemetry import predictions
from . import handler_requests
from .content import encoded, encoded_in_parts, read_samples
from .context import RequestContext, StreamedResponse
from .extension import Lantern

Body = bytes | StreamedResponse
Answer = tuple[Body, list[tuple[str, str]]]
"""The body of a response, and its headers, Content-Type first. A large one is streamed, and ends
its context itself.
"""


def predict(
    lantern: Lantern, service: ModelService, context: RequestContext, read_body: ReadBody
) -> Answer:
    """Predict the sample in the body.

    Raises `ModelUnavailable`, `VersionNotLoaded`, `TakesNoFeatures`, `InvalidTop`, what
    ``read_body`` raises, `NotJson`, `MalformedBody`, marshmallow's `ValidationError`, and what
    `Model.predict` raises. Only successful predictions are logged and counted.
    """
    rollout = service.rollout
    model = choose(lantern, rollout, context)
    if model.handler is not None:
        return answer_by_handler(lantern, model, context, read_body)
    bodies = bodies_of(model, lantern.settings.limits.max_batch_size)
    query = context.head.query
    top = requested_top(query, model) if query or model.manifest.top else 0
    request = bodies.requests.predict
    if isinstance(request, MediaBody):
        (sample,) = read_samples(request, context, read_body)
        row = encoded(model, sample)
    else:
        row = request.load(read_body(request.media_types))
    prediction, headers = predict_row(lantern, rollout, context, model, row, place=request.place)
    if top:
        written: Parts = TopAnswers(bodies.responses.one, model, top).of_one(prediction)
    else:
        written = bodies.responses.one.in_parts(prediction)
    return _body(lantern, context, written), [("Content-Type", JSON), *headers]


def predict_row(
    lantern: Lantern,
    rollout: Rollout,
    context: RequestContext,
    model: Model,
    row: Tensors,
    *,
    place: tuple[str, ...],
) -> tuple[Prediction, list[tuple[str, str]]]:
    """Return the prediction for one row, which is recorded, and its warnings as headers.

    ``place`` is where the sample is in the body. Raises what `Model.predict` raises.
    """
    started = perf_counter()
    try:
        prediction = model.predict(row)
    except NonFiniteOutput as error:
        error.path = place
        raise
    seconds = perf_counter() - started
    context.rows = 1
    headers = predictions.record_one(
        lantern.metrics,
        context.request_id,
        model,
        row,
        prediction,
        with_features=lantern.settings.logging.features,
    )
    if rollout.mode == "canary":
        if not prediction.was_cached:
            lantern.metrics.prediction_timed(model, seconds)
    elif rollout.mode == "shadow":
        offer_to_shadow(lantern, rollout, model, row, prediction)
    return prediction, headers


def predict_batch(
    lantern: Lantern, service: ModelService, context: RequestContext, read_body: ReadBody
) -> Answer:
    """Predict every sample in the body.

    Raises what `predict` raises, `BatchTooLarge`, and `AnswerTooLarge` before the network runs.
    """
    rollout = service.rollout
    model = choose(lantern, rollout, context)
    limits = lantern.settings.limits
    if model.handler is not None:
        answers = handler_requests.answer_batch(model, context, read_body, limits.max_batch_size)
        document = handler_requests.in_one_document(answers, model.version)
        _record_handled(lantern, context, model, len(answers))
        return document, [("Content-Type", JSON)]
    bodies = bodies_of(model, limits.max_batch_size)
    top = requested_top(context.head.query, model)
    request = bodies.requests.batch
    if isinstance(request, MediaBody):
        samples = read_samples(request, context, read_body)
        count, parts = len(samples), encoded_in_parts(model, samples, limits.run_seconds)
    else:
        rows = request.load(read_body(request.media_types))
        count, parts = row_count(rows), iter((rows,))
    if count * model.task.width > limits.max_answer_values:
        raise AnswerTooLarge(count, model.task.width, limits.max_answer_values)
    batch, rows = _predict_parts(lantern, rollout, model, parts)
    if top:
        written: Parts = TopAnswers(bodies.responses.one, model, top).of_batch(batch)
    else:
        written = bodies.responses.many.in_parts(batch)
    answer = _body(lantern, context, written)
    context.rows = count
    headers = predictions.record_batch(lantern.metrics, model, rows, batch)
    return answer, [("Content-Type", JSON), *headers]


def _predict_parts(
    lantern: Lantern, rollout: Rollout, model: Model, parts: Iterable[Tensors]
) -> tuple[Batch, Tensors]:
    """Return the predictions for the rows of all ``parts``, one part after the other, and the rows
    of the last: features, of which warnings are made, come in one.
    """
    batches: list[Batch] = []
    rows: Tensors = {}
    done = 0
    for rows in parts:
        try:
            batch = model.predict_batch(rows)
        except NonFiniteOutput as error:
            raise error.moved(done) from None
        offer_to_shadow(lantern, rollout, model, rows, batch)
        batches.append(batch)
        done += len(batch)
    first, *others = batches
    return (type(first).joined(batches) if others else first), rows


def answer_by_handler(
    lantern: Lantern, model: Model, context: RequestContext, read_body: ReadBody
) -> Answer:
    """Return what the handler of ``model`` answers. Raises as `handler_requests.answer` does."""
    found = handler_requests.answer(model, context, read_body)
    _record_handled(lantern, context, model, 1)
    return found.body, [("Content-Type", found.content_type)]


def _record_handled(lantern: Lantern, context: RequestContext, model: Model, rows: int) -> None:
    """Record that the handler of ``model`` answered so many samples."""
    context.rows = rows
    predictions.record_run(lantern.metrics, model, rows, {})


def largest_batch(model: Model, limits: LimitSettings) -> int:
    """Return the largest number of rows that a batch for ``model`` may have; 0 if it has none."""
    if not model.takes_samples:
        return 0
    if model.handler is not None:
        return limits.max_batch_size
    return min(limits.max_batch_size, limits.max_answer_values // model.task.width)


def _body(lantern: Lantern, context: RequestContext, parts: Parts) -> Body:
    """Return the body of a response: its bytes, or a stream if it has several parts."""
    if isinstance(parts, tuple) or len(parts) == 1:
        (body,) = parts
        return body
    return StreamedResponse(context, iter(parts), parts.nbytes, lantern.metrics)


def offer_to_shadow(
    lantern: Lantern,
    rollout: Rollout,
    model: Model,
    rows: Tensors,
    answer: Prediction | Batch,
) -> None:
    """Offer the rows and the answer of the stable version to the shadow, if there is one."""
    if rollout.mode == "shadow" and rollout.candidate is not None and model is rollout.stable:
        lantern.shadow.offer(model, rollout.candidate, rows, answer)


def choose(
    lantern: Lantern, rollout: Rollout, context: RequestContext, version: str | None = None
) -> Model:
    """Return the model for a request: the version that its path or its header pins, or the one
    that its routing key selects.

    Raises `VersionNotLoaded`.
    """
    pin = version or context.head.version
    if pin is not None:
        model = rollout.pinned(pin)
    elif rollout.candidate is None:
        model = rollout.stable
    else:
        model = rollout.choose(context.environ.get(lantern.routing_variable) or context.request_id)
    context.model, context.model_version = model.name, model.version
    return model
