"""Health checks of this worker: healthy, live, ready."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, Response

from ..access.guard import OPEN, Access
from ..http.body import encode, reply, reply_encoded
from ..http.errors import Draining
from ..http.extension import current_lantern
from ..http.routes import Description, route
from ..protocols.native.schemas import HEALTH, PROBE

blueprint = Blueprint("health", __name__)

_PUBLIC = Access(OPEN, is_rate_limited=False)
_LIVE = encode(PROBE, {"status": "live"})
_READY = encode(PROBE, {"status": "ready"})


@route(
    blueprint,
    "/health",
    access=_PUBLIC,
    description=Description(
        "Check the health of the worker",
        "Health",
        HEALTH,
        also={503: ("The worker is unhealthy; `reason` says why.", HEALTH)},
    ),
)
def health() -> Response:
    """Return the health of the worker: 200 if every model is loaded, else 503."""
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
    description=Description("Check that the worker is alive", "Health", PROBE),
)
def live() -> Response:
    """Return 200: a worker that responds is alive."""
    return reply_encoded(_LIVE)


@route(
    blueprint,
    "/health/ready",
    access=_PUBLIC,
    description=Description("Check that the worker is ready", "Health", PROBE, errors=(500, 503)),
)
def ready() -> Response:
    """Return 200 if every model is loaded and verified, and the worker is not about to stop."""
    check_ready()
    return reply_encoded(_READY)


def check_ready() -> None:
    """Raise `Draining`, or `ModelUnavailable`, if no requests are to be sent to this worker."""
    lantern = current_lantern()
    if lantern.draining():
        raise Draining
    for service in lantern.services:
        service.current()
