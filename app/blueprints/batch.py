"""Many predictions at once, all or nothing."""

from __future__ import annotations

from flask import Blueprint, Response

from app import predicting
from app.extension import lantern
from app.model.service import ModelService
from app.telemetry.requests import current_call
from app.wire import read_json_body, reply_encoded

blueprint = Blueprint("batch", __name__)


@blueprint.post("/predict/batch")
def predict_batch() -> Response:
    """Classify every sample, or refuse them all."""
    return _predict_batch(lantern().service)


@blueprint.post("/models/<name>/batch")
def predict_batch_by(name: str) -> Response:
    """Classify every sample by the model of that name, or refuse them all."""
    return _predict_batch(lantern().named(name))


def _predict_batch(service: ModelService) -> Response:
    call = current_call()
    call.raise_failure()
    answer = predicting.predict_batch(lantern(), service, call, read_json_body)
    return reply_encoded(*answer)
