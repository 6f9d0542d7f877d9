"""What this service is, for programs and for people, and what its model is."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from flask import Blueprint, Response, make_response, render_template, request

from app import __version__
from app.extension import lantern
from app.model.model import Model
from app.schemas import LINKS, MODEL_INFO
from app.wire import JSON, encode, reply, reply_encoded

blueprint = Blueprint("info", __name__)

_LINKS = {
    "message": "Lantern serves a trained classifier; POST a sample to /predict.",
    "version": __version__,
    "docs": "/docs",
    "openapi": "/openapi.json",
    "health": "/health",
    "model": "/model/info",
    "predict": "/predict",
    "batch": "/predict/batch",
    "metrics": "/metrics",
}

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'"
)
"""What the page may load (CSP 3): its own files. Names that a bundle made up can't run."""


@blueprint.get("/")
def index() -> Response:
    """Give links to a program, and to a browser a page to try the model on."""
    if request.accept_mimetypes.best_match([JSON, "text/html"]) == "text/html":
        service = lantern().service
        model = service.loaded
        response = make_response(
            render_template(
                "page.html",
                model=model and model.info(),
                reason=service.unavailable_reason,
                version=__version__,
            )
        )
        response.headers["Content-Security-Policy"] = _PAGE_POLICY
    else:
        response = reply(LINKS, _LINKS)
    response.vary.add("Accept")
    return response


_described: WeakKeyDictionary[Model, bytes] = WeakKeyDictionary()


@blueprint.get("/model/info")
def model_info() -> Response:
    """Describe the model that is loaded."""
    model = lantern().service.current()
    body = _described.get(model)
    if body is None:  # a model never changes
        body = _described[model] = encode(MODEL_INFO, model.info())
    return reply_encoded(body)
