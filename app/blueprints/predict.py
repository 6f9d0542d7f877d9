"""One prediction."""

from __future__ import annotations

from flask import Blueprint, Response

from app.extension import current_model, lantern
from app.schemas import PREDICTION, request_schemas
from app.telemetry import predictions
from app.wire import read_json, reply

blueprint = Blueprint("predict", __name__)


@blueprint.post("/predict")
def predict() -> Response:
    """Classify one sample."""
    model = current_model()
    schema = request_schemas(model.encoder, lantern().settings.limits.max_batch_size).predict
    row = schema.load(read_json())["features"]
    prediction = model.predict(row)
    response = reply(PREDICTION, prediction)
    predictions.record_one(response, model, row, prediction)
    return response
