"""The metrics of all workers, for Prometheus."""

from __future__ import annotations

from flask import Blueprint, Response

from ..access.guard import Access
from ..access.keys import METRICS
from ..http.extension import current_lantern
from ..http.routes import Description, route
from ..telemetry.metrics import CONTENT_TYPE

blueprint = Blueprint("metrics", __name__)


@route(
    blueprint,
    "/metrics",
    access=Access(METRICS, opened_by="open_metrics"),
    description=Description(
        "Metrics of all workers",
        "Service",
        explains="The metrics, in Prometheus's text format.",
        media_types=(CONTENT_TYPE,),
    ),
)
def metrics() -> Response:
    """Return all metrics, summed over the workers."""
    return Response(current_lantern().metrics.exposition(), content_type=CONTENT_TYPE)
