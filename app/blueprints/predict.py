"""The prediction for one sample."""

from __future__ import annotations

from flask import Blueprint, Response

from ..access.guard import Access
from ..access.keys import PREDICT
from ..http import handlers
from ..http.routes import PREDICTION_ERRORS, Description, route
from ..http.views import answer_with

blueprint = Blueprint("predict", __name__)


@route(
    blueprint,
    *("/predict", "/models/<name>/predict"),
    methods=("POST",),
    access=Access(PREDICT),
    handler=handlers.predict,
    description=Description(
        "Predict one sample",
        "Prediction",
        explains="The prediction.",
        body="features",
        parameters=("top", "version", "routing", "timeout"),
        errors=PREDICTION_ERRORS,
    ),
)
def predict(name: str | None = None) -> Response:
    """Predict one sample with the default model or the one called ``name``."""
    return answer_with(handlers.predict, name)
