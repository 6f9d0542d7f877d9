"""Information on the service and its models, for programs and for people."""

from __future__ import annotations

import json
from typing import Any
from weakref import WeakKeyDictionary

from flask import Blueprint, Response, make_response, render_template, request, url_for

from ..access.guard import OPEN, Access
from ..access.header_names import MODEL_VERSION
from ..access.keys import PREDICT
from ..http.body import encode, reply, reply_encoded
from ..http.extension import current_lantern
from ..http.handler_examples import HandlerExample
from ..http.handlers import largest_batch
from ..http.routes import Description, route
from ..model.model import Model
from ..model.steps.declaration import IMAGE, PAIR, TEXT
from ..protocols.native.media_types import JSON
from ..protocols.native.sample_schemas import taken_members
from ..protocols.native.schemas import LINKS, MODEL_INFO, MODELS
from ..registry.rollout import Rollout
from ..registry.service import ModelService, State
from ..version import __version__

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
"""The links in JSON: name and endpoint."""

_LINKED = (
    ("/docs", "flasgger.apidocs", "API docs"),
    ("/openapi.json", "flasgger.openapi", "OpenAPI"),
    ("/metrics", "metrics.metrics", "Metrics"),
    ("/health", "health.health", "Health"),
)
"""The links of the page: rule, endpoint and label."""

_MAX_OPTIONS = 100
"""The most values of a category for which the page has a list."""
_MAX_FIELDS, _MAX_NAMES = 200, 1000
"""The most features and class names for which the page, which is rendered each time, has a form."""


@route(
    blueprint,
    "/",
    access=Access(opened_by="open_page"),
    description=Description(
        "Link to everything; browsers get a page", "Service", LINKS, media_types=("text/html",)
    ),
)
def index() -> Response:
    """Return links as JSON or, to a browser, a page on which to try the model."""
    if request.accept_mimetypes.best_match([JSON, "text/html"]) == "text/html":
        service, guard = current_lantern().default_service, current_lantern().guard
        model, takes_key = service.loaded, guard.required_scope("/predict") != OPEN
        response = make_response(
            render_template(
                "page.html",
                model=model and model.info(),
                takes_form=model is not None and _fits_a_form(model),
                takes_samples=model is not None and model.takes_samples,
                takes_whole_requests=model is not None and model.handler is not None,
                call=_call(model, takes_key=takes_key) if model is not None else None,
                max_options=_MAX_OPTIONS,
                **(_about_form(model) if model is not None else {}),
                reason=service.fault,
                version=__version__,
                takes_key=takes_key,
                # Browsers send no key when they follow a link.
                links=[
                    (e, label) for rule, e, label in _LINKED if guard.required_scope(rule) == OPEN
                ],
            )
        )
    else:
        links = {name: url_for(endpoint) for name, endpoint in _LINKS.items()}
        message = f"Lantern serves a trained model. POST a sample to {links['predict']}."
        response = reply(LINKS, {"message": message, "version": __version__, **links})
    response.vary.add("Accept")
    return response


_PROMISED = {
    "classification": "the probability of each class",
    "scores": "the score of each class",
    "multilabel": "the probability of each label",
    "regression": "what the model predicts",
    "embedding": "the vector that the model returns",
}


def _call(model: Model, *, takes_key: bool) -> dict[str, Any] | None:
    """Return a command that asks a model with a handler, and what that answered when it was packed;
    None for other models, and where no short request is known.
    """
    example = HandlerExample.of(model) if model.handler is not None else None
    if example is None:
        return None
    url = url_for("predict.predict", _external=True)
    answer = example.answer
    if answer is not None and not isinstance(answer, str):
        answer = json.dumps(answer, indent=2, ensure_ascii=False)
    return {"curl": example.curl(url, with_key=takes_key), "answer": answer}


def _about_form(model: Model) -> dict[str, Any]:
    """Return what the page's form and its script have to know of a model."""
    manifest = model.manifest
    names = [name for name in ("classes", "labels", "targets") if getattr(manifest, name)]
    return {
        "form": {
            **_fields(model),
            "classes": list(manifest.classes or manifest.labels),
            "units": {target.name: target.unit for target in manifest.targets},
            "version": model.version,
        },
        "answers_named": " and ".join(f"{len(getattr(manifest, name)):,} {name}" for name in names)
        or f"{model.task.width:,} numbers in its answer",
        "promised": _PROMISED.get(
            "scores" if manifest.output("scores") is not None else model.task.name, ""
        ),
    }


def _fields(model: Model) -> dict[str, Any]:
    """Return the fields of the form: the features, or an image and a text with its pair.

    ``pointer`` leads to the object that they are members of in the JSON of a request.
    """
    if model.steps is not None:
        taken = taken_members(model.steps.members)
        names = [name for name in taken if name != PAIR or model.steps.takes_pair]
        return {
            "pointer": "",
            "features": [*names],
            "kinds": [IMAGE if name == IMAGE else TEXT for name in names],
            "nullable": [name == PAIR for name in names],
        }
    features = model.encoder.features
    return {
        "pointer": "/features",
        "features": [feature.name for feature in features],
        "kinds": [feature.kind for feature in features],
        "nullable": [feature.nullable for feature in features],
    }


def _fits_a_form(model: Model) -> bool:
    """Return True if the model takes samples, of few enough features for a form, and has few enough
    names of what it answers.
    """
    return (
        model.takes_samples
        and model.handler is None
        and model.encoder.width <= _MAX_FIELDS
        and len(model.task.columns or ()) <= _MAX_NAMES
    )


_described: WeakKeyDictionary[Rollout, tuple[tuple[str, str], bytes]] = WeakKeyDictionary()


@route(
    blueprint,
    *("/model/info", "/models/<name>"),
    access=Access(PREDICT),
    description=Description(
        "Describe the model",
        "Model",
        MODEL_INFO,
        parameters=("version",),
        errors=(404, 500, 503),
    ),
)
def model_info(name: str | None = None) -> Response:
    """Return the description of the default model or the one called ``name``."""
    return _describe(current_lantern().get_service(name))


@route(
    blueprint,
    "/models",
    access=Access(PREDICT),
    description=Description("List the models", "Model", MODELS),
)
def models() -> Response:
    """Return the models of this service, and which of their versions are loaded."""
    return reply(MODELS, {"models": [_listed(each) for each in current_lantern().services]})


def _describe(service: ModelService) -> Response:
    state = service.state
    rollout = service.rollout
    version = request.headers.get(MODEL_VERSION)
    model = rollout.stable if version is None else rollout.pinned(version)
    # A rollout never changes, it is replaced; so its description is made once.
    key = model.version, state.fault
    known, body = _described.get(rollout, (None, b""))
    if known != key:
        more = {
            "max_batch_size": largest_batch(model, current_lantern().settings.limits),
            "release": _release(State(rollout, state.fault)),
        }
        body = encode(MODEL_INFO, model.info() | more)
        _described[rollout] = key, body
    return reply_encoded(body)


def _listed(service: ModelService) -> dict[str, Any]:
    release = _release(service.state)  # first, because loading a model may reveal its name
    return {"name": service.name or None, "release": release}


def _release(state: State) -> dict[str, Any]:
    rollout = state.rollout
    candidate = rollout and rollout.candidate
    return {
        "stable": rollout and rollout.stable.version,
        "candidate": candidate and candidate.version,
        "mode": rollout and rollout.mode,
        "traffic": rollout.traffic if rollout and rollout.mode == "canary" else None,
        "fault": state.fault or None,
    }
