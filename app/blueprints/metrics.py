"""The metrics of all workers, for Prometheus."""

from __future__ import annotations

from flask import Blueprint, Response

from app.extension import lantern
from app.telemetry.metrics import CONTENT_TYPE

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def metrics() -> Response:
    """Give every metric, summed over the workers."""
    return Response(lantern().metrics.exposition(), content_type=CONTENT_TYPE)
