"""What this service is, for programs and for people, and what its model is."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from flask import Blueprint, Response, make_response, render_template, request, url_for

from app import __version__
from app.access.guard import OPEN
from app.extension import lantern
from app.model.model import Model
from app.model.service import ModelService, State
from app.model.serving import Serving
from app.predicting import VERSION_HEADER, largest_batch
from app.schemas import LINKS, MODEL_INFO, MODELS
from app.wire import JSON, encode, reply, reply_encoded

blueprint = Blueprint("info", __name__)

_LINKS = {
    "docs": "flasgger.apidocs",
    "openapi": "flasgger.openapi",
    "health": "health.health",
    "model": "info.model_info",
    "models": "info.models",
    "predict": "predict.predict",
    "batch": "batch.predict_batch",
    "metrics": "metrics.metrics",
}
"""What a program is told of: name and endpoint."""

_LINKED = (
    ("/docs", "flasgger.apidocs", "API docs"),
    ("/openapi.json", "flasgger.openapi", "OpenAPI"),
    ("/metrics", "metrics.metrics", "Metrics"),
    ("/health", "health.health", "Health"),
)
"""What the page links to: rule, endpoint and label."""

_MOST_FIELDS, _MOST_NAMES = 200, 1000
"""The page has a form for a model of so many features and classes: it is made for each visitor."""


@blueprint.get("/")
def index() -> Response:
    """Give links to a program, and to a browser a page to try the model on."""
    if request.accept_mimetypes.best_match([JSON, "text/html"]) == "text/html":
        service, guard = lantern().service, lantern().guard
        model = service.loaded
        response = make_response(
            render_template(
                "page.html",
                model=model and model.info(),
                takes_form=model is not None and _fits_a_form(model),
                reason=service.fault,
                version=__version__,
                takes_key=guard.need_of("/predict") != OPEN,
                # A browser that follows a link sends no key.
                links=[(e, label) for rule, e, label in _LINKED if guard.need_of(rule) == OPEN],
            )
        )
    else:
        links = {name: url_for(endpoint) for name, endpoint in _LINKS.items()}
        message = f"Lantern serves a trained classifier; POST a sample to {links['predict']}."
        response = reply(LINKS, {"message": message, "version": __version__, **links})
    response.vary.add("Accept")
    return response


def _fits_a_form(model: Model) -> bool:
    """Return True if people can fill in the features, and the page need not hold many names."""
    return model.encoder.width <= _MOST_FIELDS and len(model.classes) <= _MOST_NAMES


_described: WeakKeyDictionary[Serving, tuple[tuple[str, str], bytes]] = WeakKeyDictionary()


@blueprint.get("/model/info")
def model_info() -> Response:
    """Describe the model that is loaded."""
    return _describe(lantern().service)


@blueprint.get("/models/<name>/info")
def model_info_by(name: str) -> Response:
    """Describe the model of that name."""
    return _describe(lantern().named(name))


@blueprint.get("/models")
def models() -> Response:
    """List the models of this service, and which of their versions serve."""
    return reply(MODELS, {"models": [_listed(each) for each in lantern().models]})


def _describe(service: ModelService) -> Response:
    state = service.state
    serving = service.serving
    version = request.headers.get(VERSION_HEADER)
    model = serving.stable if version is None else serving.pinned(version)
    # What serves never changes, it is replaced; so it is described once.
    key = model.version, state.fault
    known, body = _described.get(serving, (None, b""))
    if known != key:
        more = {
            "max_batch_size": largest_batch(model, lantern().settings.limits),
            "release": _release(State(serving, state.fault)),
        }
        body = encode(MODEL_INFO, model.info() | more)
        _described[serving] = key, body
    return reply_encoded(body)


def _listed(service: ModelService) -> dict[str, Any]:
    release = _release(service.state)  # first: what is loaded for this may be what has the name
    return {"name": service.name or None, "release": release}


def _release(state: State) -> dict[str, Any]:
    serving = state.serving
    candidate = serving and serving.candidate
    return {
        "stable": serving and serving.stable.version,
        "candidate": candidate and candidate.version,
        "mode": serving and serving.mode,
        "share": serving.share if serving and serving.mode == "canary" else None,
        "fault": state.fault or None,
    }
