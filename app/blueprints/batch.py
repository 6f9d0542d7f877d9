"""Many predictions at once, all or nothing."""

from __future__ import annotations

from flask import Blueprint, Response

from app import predicting
from app.extension import lantern
from app.telemetry.requests import current_call
from app.wire import read_json_body, reply_encoded

blueprint = Blueprint("batch", __name__)


@blueprint.post("/predict/batch")
def predict_batch() -> Response:
    """Classify every sample, or refuse them all."""
    return reply_encoded(*predicting.predict_batch(lantern(), current_call(), read_json_body))
