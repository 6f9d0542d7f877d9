"""Whether this worker is well, alive, and ready for work."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, Response

from ..access.guard import OPEN, Access
from ..http.body import reply
from ..http.errors import Draining
from ..http.extension import current_lantern
from ..http.routes import Description, route
from ..protocols.native.schemas import HEALTH, PROBE

blueprint = Blueprint("health", __name__)

_PUBLIC = Access(OPEN, is_rate_limited=False)


@route(
    blueprint,
    "/health",
    access=_PUBLIC,
    description=Description(
        "Whether the worker is healthy",
        "Health",
        HEALTH,
        also={503: ("It is unhealthy, and says why.", HEALTH)},
    ),
)
def health() -> Response:
    """Return whether every model of the worker is loaded; 503 when one isn't."""
    lantern = current_lantern()
    model = lantern.default_service.loaded
    missing = [service.fault for service in lantern.services if service.loaded is None]
    document = {
        "status": "unhealthy" if missing else "healthy",
        "model_loaded": model is not None,
        "model_version": model.version if model else None,
        "timestamp": datetime.now(UTC),
    }
    if missing:
        document["reason"] = " ".join(missing)
    return reply(HEALTH, document, 503 if missing else 200)


@route(
    blueprint,
    "/health/live",
    access=_PUBLIC,
    description=Description("Whether the worker answers", "Health", PROBE),
)
def live() -> Response:
    """Answer, which is all that liveness asks."""
    return reply(PROBE, {"status": "live"})


@route(
    blueprint,
    "/health/ready",
    access=_PUBLIC,
    description=Description("Whether to send requests here", "Health", PROBE, errors=(500, 503)),
)
def ready() -> Response:
    """Return whether to send requests here: a tested model is loaded and the worker is to stay."""
    lantern = current_lantern()
    if lantern.draining():
        raise Draining
    for service in lantern.services:
        service.current()
    return reply(PROBE, {"status": "ready"})
