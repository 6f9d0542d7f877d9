"""Predictions for many samples at once, all or none."""

from __future__ import annotations

from flask import Blueprint, Response

from ..access.guard import Access
from ..access.keys import PREDICT
from ..http import handlers
from ..http.routes import PREDICTION_ERRORS, Description, route
from ..http.views import answer_with

blueprint = Blueprint("batch", __name__)


@route(
    blueprint,
    *("/predict/batch", "/models/<name>/predict/batch"),
    methods=("POST",),
    access=Access(PREDICT),
    handler=handlers.predict_batch,
    description=Description(
        "Predict many samples",
        "Prediction",
        explains="The predictions, in the order of the samples.",
        body="samples",
        parameters=("top", "version", "routing", "timeout"),
        errors=PREDICTION_ERRORS,
    ),
)
def predict_batch(name: str | None = None) -> Response:
    """Predict every sample, or none, with the default model or the one called ``name``."""
    return answer_with(handlers.predict_batch, name)
