"""A prediction from the bytes of a body to the bytes of an answer, whoever carries them.

Flask's views and the short path in front of Flask call the same two functions, so what is
validated, predicted, logged and counted can't differ between them. They know neither Flask's
request nor its response.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from app.extension import Lantern
from app.model.errors import AnswerTooLarge
from app.model.model import Model
from app.model.service import ModelService
from app.model.serving import Serving
from app.model.shadow import Probabilities
from app.protocols.native.answers import EncodedRows
from app.schemas import BATCH_RESPONSE, PREDICTION, request_bodies
from app.settings import LimitSettings
from app.telemetry import predictions
from app.telemetry.requests import AnswerInParts, Call

Body = bytes | AnswerInParts
Answer = tuple[Body, list[tuple[str, str]]]
"""The JSON of an answer, and the headers that it alone has. A large one comes in parts, and ends
its call itself.
"""

Predict = Callable[[Lantern, ModelService, Call, Callable[[], bytes]], Answer]

VERSION_HEADER = "X-Model-Version"


def predict(
    parts: Lantern, service: ModelService, call: Call, read_body: Callable[[], bytes]
) -> Answer:
    """Classify the one sample in the body.

    Raises `ModelUnavailable`, `VersionNotLoaded`, what ``read_body`` raises, 400 for what isn't
    JSON, marshmallow's `ValidationError`, and `NonFiniteOutput`; nothing is logged or counted
    before all is well.
    """
    serving = service.serving
    model = choose(parts, serving, call)
    bodies = request_bodies(model, parts.settings.limits.max_batch_size)
    row = bodies.predict.load(read_body())
    started = perf_counter()
    prediction = model.predict(row)
    seconds = perf_counter() - started
    body = _body(parts, call, PREDICTION.in_parts(prediction))
    headers = predictions.record_one(parts, call, model, row, prediction)
    if serving.mode == "canary":
        if not prediction.was_cached:
            parts.metrics.predicted_beside(model, seconds)
    elif serving.mode == "shadow":
        _shadow(parts, serving, model, row, [prediction.probabilities])
    return body, headers


def predict_batch(
    parts: Lantern, service: ModelService, call: Call, read_body: Callable[[], bytes]
) -> Answer:
    """Classify every sample in the body, or refuse them all; raises as `predict` does, and
    `BatchTooLarge`, and `AnswerTooLarge` before the network runs.
    """
    serving = service.serving
    model = choose(parts, serving, call)
    bodies = request_bodies(model, parts.settings.limits.max_batch_size)
    matrix = bodies.batch.load(read_body())
    rows, limit = len(matrix), parts.settings.limits.max_answer_values
    if rows * len(model.classes) > limit:
        raise AnswerTooLarge(rows, len(model.classes), limit)
    batch = model.predict_batch(matrix)
    body = _body(parts, call, BATCH_RESPONSE.in_parts(batch))
    headers = predictions.record_batch(parts, call, model, matrix, batch)
    _shadow(parts, serving, model, matrix, batch.probabilities)
    return body, headers


def largest_batch(model: Model, limits: LimitSettings) -> int:
    """Return the number of rows that a batch for ``model`` may have at most."""
    return min(limits.max_batch_size, limits.max_answer_values // len(model.classes))


def _body(parts: Lantern, call: Call, encoded: EncodedRows | tuple[bytes]) -> Body:
    """Encode the answer, if it is one part, or begin to; others are served between two parts."""
    if len(encoded) == 1:
        (body,) = encoded
        return body
    assert isinstance(encoded, EncodedRows)
    return AnswerInParts(call, iter(encoded), encoded.nbytes, parts.metrics)


def _shadow(
    parts: Lantern,
    serving: Serving,
    model: Model,
    matrix: NDArray[np.float32],
    probabilities: Probabilities,
) -> None:
    """Have a shadow predict, too, what the stable version answered."""
    if serving.mode == "shadow" and serving.candidate is not None and model is serving.stable:
        parts.shadow.offer(model, serving.candidate, matrix, probabilities)


def choose(parts: Lantern, serving: Serving, call: Call) -> Model:
    """Give the model that answers ``call``: the one it pins, or that its routing key falls to.

    Raises `VersionNotLoaded`.
    """
    pin = call.environ.get("HTTP_X_MODEL_VERSION")
    if pin is not None:
        model = serving.pinned(pin)
    elif serving.candidate is None:
        model = serving.stable
    else:
        model = serving.choose(call.environ.get(parts.routing_variable) or call.request_id)
    call.model, call.model_version = model.name, model.version
    return model
