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
    """Tell whether every model of the worker serves; 503 when one doesn't."""
    parts = lantern()
    model = parts.service.loaded
    missing = [service.fault for service in parts.models if service.loaded is None]
    document = {
        "status": "unhealthy" if missing else "healthy",
        "model_loaded": model is not None,
        "model_version": model.version if model else None,
        "timestamp": datetime.now(UTC),
    }
    if missing:
        document["reason"] = " ".join(missing)
    return reply(HEALTH, document, 503 if missing else 200)


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
    for service in parts.models:
        service.current()
    return reply(PROBE, {"status": "ready"})
