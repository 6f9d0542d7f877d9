"""A prediction from the bytes of a body to the bytes of an answer, whoever carries them.

Flask's views and the short path in front of Flask call the same two functions, so what is
validated, predicted, logged and counted can't differ between them. They know neither Flask's
request nor its response.
"""

from __future__ import annotations

from collections.abc import Callable

from app.extension import Lantern
from app.schemas import BATCH_RESPONSE, PREDICTION, request_bodies
from app.telemetry import predictions
from app.telemetry.requests import Call

Answer = tuple[bytes, list[tuple[str, str]]]
"""The JSON of an answer, and the headers that it alone has."""

Predict = Callable[[Lantern, Call, Callable[[], bytes]], Answer]


def predict(parts: Lantern, call: Call, read_body: Callable[[], bytes]) -> Answer:
    """Classify the one sample in the body.

    Raises `ModelUnavailable`, what ``read_body`` raises, 400 for what isn't JSON, marshmallow's
    `ValidationError`, and `NonFiniteOutput`; nothing is logged or counted before all is well.
    """
    model = parts.service.current()
    call.model_version = model.version
    bodies = request_bodies(model.encoder, parts.settings.limits.max_batch_size)
    row = bodies.predict.load(read_body())
    prediction = model.predict(row)
    body = PREDICTION.encode(prediction)
    return body, predictions.record_one(parts, call, model, row, prediction)


def predict_batch(parts: Lantern, call: Call, read_body: Callable[[], bytes]) -> Answer:
    """Classify every sample in the body, or refuse them all; raises as `predict` does, and
    `BatchTooLarge`.
    """
    model = parts.service.current()
    call.model_version = model.version
    bodies = request_bodies(model.encoder, parts.settings.limits.max_batch_size)
    matrix = bodies.batch.load(read_body())
    batch = model.predict_batch(matrix)
    body = BATCH_RESPONSE.encode(batch)
    return body, predictions.record_batch(parts, call, model, matrix, batch)
