"""Many predictions at once, all or nothing."""

from __future__ import annotations

from flask import Blueprint, Response

from app.extension import current_model, lantern
from app.schemas import BATCH_RESPONSE, request_schemas
from app.telemetry import predictions
from app.wire import read_json, reply

blueprint = Blueprint("batch", __name__)


@blueprint.post("/predict/batch")
def predict_batch() -> Response:
    """Classify every sample, or refuse them all."""
    model = current_model()
    schema = request_schemas(model.encoder, lantern().settings.limits.max_batch_size).batch
    matrix = schema.load(read_json())["samples"]
    batch = model.predict_batch(matrix)
    response = reply(
        BATCH_RESPONSE,
        {
            "predictions": batch,
            "total_samples": len(batch),
            "model_version": batch.model_version,
        },
    )
    predictions.record_batch(response, model, matrix, batch)
    return response
