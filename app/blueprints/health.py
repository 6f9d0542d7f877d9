"""Whether this worker is well, alive, and ready for work."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, Response

from app.errors import Draining
from app.extension import lantern
from app.schemas import HEALTH, PROBE
from app.wire import reply

blueprint = Blueprint("health", __name__)


@blueprint.get("/health")
def health() -> Response:
    """Tell whether the worker has a model that serves; 503 when it hasn't."""
    service = lantern().service
    model = service.loaded
    document = {
        "status": "healthy" if model else "unhealthy",
        "model_loaded": model is not None,
        "model_version": model.version if model else None,
        "timestamp": datetime.now(UTC),
    }
    if model is None:
        document["reason"] = service.unavailable_reason
    return reply(HEALTH, document, 200 if model else 503)


@blueprint.get("/health/live")
def live() -> Response:
    """Answer, which is all that liveness asks."""
    return reply(PROBE, {"status": "live"})


@blueprint.get("/health/ready")
def ready() -> Response:
    """Tell whether to send requests here: a tested model is loaded and the worker is to stay."""
    parts = lantern()
    if parts.draining():
        raise Draining
    parts.service.current()
    return reply(PROBE, {"status": "ready"})
