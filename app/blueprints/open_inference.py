"""The Open Inference Protocol v2, for clients of KServe, Triton and MLServer."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Blueprint, Response

from ..access.guard import OPEN, Access
from ..access.keys import METRICS, PREDICT
from ..http.body import OCTETS, encode, read_tensor_body, reply, reply_encoded
from ..http.context import current_request
from ..http.extension import current_lantern
from ..http.open_inference import infer as answer_inference
from ..http.routes import Description, route
from ..http.views import answer_with
from ..model.model import Model
from ..protocols.open_inference import EXTENSIONS
from ..protocols.open_inference.metadata import model_config as config_of
from ..protocols.open_inference.metadata import model_metadata as metadata_of
from ..protocols.open_inference.model_tensors import tensors_of
from ..protocols.open_inference.request import wants_ready_only
from ..protocols.open_inference.schemas import (
    INDEX,
    INDEX_REQUEST,
    INFERENCE_REQUEST,
    INFERENCE_RESPONSE,
    MODEL_CONFIG,
    MODEL_METADATA,
    MODEL_READY,
    SERVER_LIVE,
    SERVER_METADATA,
    SERVER_READY,
    STATISTICS,
)
from ..registry.rollout import Rollout
from ..registry.service import ModelService
from ..version import __version__
from .health import check_ready

blueprint = Blueprint("open_inference", __name__)

TAG = "Open Inference Protocol"
_PUBLIC = Access(OPEN, is_rate_limited=False)
_STATISTICS = Access(METRICS, opened_by="open_metrics")
_OF_A_MODEL = (404, 500, 503)
_OF_A_BODY = (400, 408, 413, 415)
_READY = "READY"
_SERVER_LIVE = encode(SERVER_LIVE, {"live": True})
_SERVER_READY = encode(SERVER_READY, {"ready": True})


def _rules(call: str = "") -> tuple[str, str]:
    """Return the rules of a call for a model, and for one of its versions."""
    model = "/v2/models/<name>"
    return model + call, f"{model}/versions/<version>{call}"


@route(
    blueprint,
    "/v2/",
    access=Access(),
    description=Description("Describe the server", TAG, SERVER_METADATA),
)
def server_metadata() -> Response:
    """Return the name and version of the server, and the extensions of the protocol it has."""
    document = {"name": "lantern", "version": __version__, "extensions": EXTENSIONS}
    return reply(SERVER_METADATA, document)


@route(
    blueprint,
    "/v2/health/live",
    access=_PUBLIC,
    description=Description("Check that the worker is alive", TAG, SERVER_LIVE),
)
def server_live() -> Response:
    """Return 200: a worker that responds is alive."""
    return reply_encoded(_SERVER_LIVE)


@route(
    blueprint,
    "/v2/health/ready",
    access=_PUBLIC,
    description=Description("Check that the worker is ready", TAG, SERVER_READY, errors=(500, 503)),
)
def server_ready() -> Response:
    """Return 200 under the same conditions as `/health/ready`."""
    check_ready()
    return reply_encoded(_SERVER_READY)


@route(
    blueprint,
    *_rules(),
    access=Access(PREDICT),
    description=Description("Describe a model's tensors", TAG, MODEL_METADATA, errors=_OF_A_MODEL),
)
def model_metadata(name: str, version: str | None = None) -> Response:
    """Return the signature of a model, and which of its versions are loaded."""
    rollout, model = _find(name, version)
    return reply(MODEL_METADATA, metadata_of(model, [each.version for each in rollout.models]))


@route(
    blueprint,
    *_rules("/ready"),
    access=Access(PREDICT),
    description=Description("Check that a model is loaded", TAG, MODEL_READY, errors=_OF_A_MODEL),
)
def model_ready(name: str, version: str | None = None) -> Response:
    """Return 200 if a model is loaded; if not, it is an error."""
    _find(name, version)
    return reply(MODEL_READY, {"name": name, "ready": True})


@route(
    blueprint,
    *_rules("/infer"),
    methods=("POST",),
    access=Access(PREDICT),
    handler=answer_inference,
    may_lack_type=True,
    description=Description(
        "Run a model on tensors",
        TAG,
        INFERENCE_RESPONSE,
        explains="The outputs. Those requested in binary follow the JSON.",
        body=INFERENCE_REQUEST,
        body_types=(OCTETS,),
        parameters=("json_bytes", "version", "routing", "timeout"),
        errors=(*_OF_A_BODY, *_OF_A_MODEL),
        media_types=(OCTETS,),
    ),
)
def infer(name: str, version: str | None = None) -> Response:
    """Return a model's outputs for some inputs."""
    return answer_with(answer_inference, name, version, read=read_tensor_body)


@route(
    blueprint,
    *_rules("/config"),
    access=Access(PREDICT),
    description=Description(
        "Describe a model in Triton's form", TAG, MODEL_CONFIG, errors=_OF_A_MODEL
    ),
)
def model_configuration(name: str, version: str | None = None) -> Response:
    """Return a model's configuration, with the rows that one request may have."""
    _, model = _find(name, version)
    limits = current_lantern().settings.limits
    rows = tensors_of(model).largest_batch(limits.max_batch_size, limits.max_answer_values)
    return reply(MODEL_CONFIG, config_of(model, rows))


@route(
    blueprint,
    *_rules("/stats"),
    access=_STATISTICS,
    description=Description(
        "A model's statistics in Triton's form", TAG, STATISTICS, errors=_OF_A_MODEL
    ),
)
def model_statistics(name: str, version: str | None = None) -> Response:
    """Return the statistics of one version of a model, or of all its loaded ones."""
    rollout, model = _find(name, version)
    return _reply_statistics(rollout.models if version is None else [model])


@route(
    blueprint,
    "/v2/models/stats",
    access=_STATISTICS,
    description=Description("All models' statistics in Triton's form", TAG, STATISTICS),
)
def statistics() -> Response:
    """Return the statistics of every loaded version."""
    states = [service.state for service in current_lantern().services]
    return _reply_statistics(
        [model for state in states if state.rollout for model in state.rollout.models]
    )


@route(
    blueprint,
    "/v2/repository/index",
    methods=("POST",),
    access=Access(PREDICT),
    description=Description(
        "List the models",
        TAG,
        INDEX,
        body=INDEX_REQUEST,
        requires_body=False,
        errors=(*_OF_A_BODY, 500, 503),
    ),
)
def repository_index() -> Response:
    """Return the loaded versions, and the models without one."""
    lantern = current_lantern()
    only_ready = wants_ready_only(read_tensor_body(current_request(), lantern.settings))
    services = lantern.services
    versions = [version for service in services for version in _index_of(service)]
    return reply(INDEX, [each for each in versions if not only_ready or each["state"] == _READY])


def _index_of(service: ModelService) -> list[dict[str, str]]:
    """Return the loaded versions of a model, or why there is none."""
    state = service.state
    if state.rollout is None:
        reason = state.fault
        return [{"name": service.name, "version": "", "state": "UNAVAILABLE", "reason": reason}]
    return [
        {"name": model.name, "version": model.version, "state": _READY, "reason": ""}
        for model in state.rollout.models
    ]


def _find(name: str, version: str | None) -> tuple[Rollout, Model]:
    """Return what is served of a model, and its version in the path, by default the stable one."""
    rollout = current_lantern().get_service(name).rollout
    return rollout, rollout.stable if version is None else rollout.pinned(version)


def _reply_statistics(models: Sequence[Model]) -> Response:
    statistics = current_lantern().statistics
    documents = [
        {"name": model.name, "version": model.version, **statistics.of(model).document()}
        for model in models
    ]
    return reply(STATISTICS, {"model_stats": documents})
