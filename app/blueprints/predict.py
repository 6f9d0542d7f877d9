"""One prediction."""

from __future__ import annotations

from flask import Blueprint, Response

from app import predicting
from app.extension import lantern
from app.model.service import ModelService
from app.telemetry.requests import current_call
from app.wire import read_json_body, reply_encoded

blueprint = Blueprint("predict", __name__)


@blueprint.post("/predict")
def predict() -> Response:
    """Classify one sample."""
    return _predict(lantern().service)


@blueprint.post("/models/<name>/predict")
def predict_by(name: str) -> Response:
    """Classify one sample by the model of that name."""
    return _predict(lantern().named(name))


def _predict(service: ModelService) -> Response:
    call = current_call()
    call.raise_failure()
    answer = predicting.predict(lantern(), service, call, read_json_body)
    return reply_encoded(*answer)
