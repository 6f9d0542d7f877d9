"""TorchServe's inference API, for callers who came from there."""

from __future__ import annotations

from flask import Blueprint, Response

from ..access.guard import OPEN, Access
from ..access.keys import PREDICT
from ..http import torchserve
from ..http.routes import Description, route
from ..http.views import answer_with
from ..protocols.native.media_types import ANY_TYPE, JSON
from ..protocols.torchserve import PING, pretty
from .health import check_ready

blueprint = Blueprint("torchserve", __name__)

TAG = "TorchServe"


@route(
    blueprint,
    "/ping",
    access=Access(OPEN, is_rate_limited=False),
    description=Description("Check that the worker is ready", TAG, PING, errors=(500, 503)),
)
def ping() -> Response:
    """Return 200 under the same conditions as `/health/ready`."""
    check_ready()
    return Response(pretty({"status": "Healthy"}), mimetype=JSON)


@route(
    blueprint,
    *("/predictions/<name>", "/predictions/<name>/<version>"),
    methods=("POST", "PUT"),
    access=Access(PREDICT),
    handler=torchserve.predict,
    description=Description(
        "Predict as TorchServe does",
        TAG,
        explains="What the handler of the model answers; of other models the probabilities by the "
        "names of the classes.",
        body_types=(ANY_TYPE,),
        requires_body=False,  # a handler may need none
        parameters=("top", "routing", "timeout"),
        errors=(400, 404, 408, 413, 422, 500, 503),
        media_types=(ANY_TYPE,),
    ),
)
def predictions(name: str, version: str | None = None) -> Response:
    """Predict the sample in the body, or in the field ``data`` or ``body`` of a form."""
    return answer_with(torchserve.predict, name, version)
