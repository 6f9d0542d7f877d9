"""One prediction."""

from __future__ import annotations

from flask import Blueprint, Response

from app import predicting
from app.extension import lantern
from app.telemetry.requests import current_call
from app.wire import read_json_body, reply_encoded

blueprint = Blueprint("predict", __name__)


@blueprint.post("/predict")
def predict() -> Response:
    """Classify one sample."""
    return reply_encoded(*predicting.predict(lantern(), current_call(), read_json_body))
