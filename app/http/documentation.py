"""The OpenAPI document at ``/openapi.json`` and its page at ``/docs``, by flasgger.

The page loads nothing from other hosts: the files of a current Swagger UI come from the package
``swagger-ui-py``.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from flasgger import Swagger
from flask import Flask, current_app, redirect, request, url_for
from flask.typing import ResponseReturnValue

from ..access.guard import OPEN, Access
from .extension import current_lantern
from .openapi import build_document, describe_access
from .routes import Route, declare, declared

_PAGES = (
    "to_docs",
    "flasgger.apidocs",
    "flasgger.openapi",
    "flasgger.<lambda>",
    "flasgger.oauth_redirect",
)
_STATIC_FILES = ("static", "flasgger.static")
"""Endpoints of Flask and flasgger, whose routes are declared here for them."""


class Documentation(Swagger):  # type: ignore[misc]
    """Flasgger's page and routes, for a document that it doesn't build."""

    def get_apispecs(self, endpoint: str = "openapi") -> dict[str, Any]:
        """Return the OpenAPI document for the loaded model, below the current request's prefix."""
        lantern = current_lantern()
        # In this order, because loading a model may reveal its name.
        loaded = [(service.loaded, service.name) for service in lantern.services]
        models = {name: model for model, name in loaded}
        settings = lantern.settings
        routes = declared(current_app)
        document = build_document(models, routes, settings.limits, settings.release.routing_header)
        describe_access(document, lantern.guard)
        if request.script_root:
            document["servers"] = [{"url": request.script_root}]
        return document

    def add_headers(self, app: Flask) -> None:
        """Add none, and so no hook that would run after every request."""


def init_app(app: Flask) -> None:
    """Register the document at ``/openapi.json`` and the page at ``/docs``."""
    Documentation(
        app,
        config={
            "title": "Lantern",
            "openapi": "3.0.3",
            "headers": [],
            "specs": [{"endpoint": "openapi", "route": "/openapi.json"}],
            "specs_route": "/docs",
            "static_url_path": "/docs/static",
            "static_folder": str(_swagger_ui_files()),
        },
        merge=False,
    )

    @app.get("/docs/")
    @app.get("/apidocs/")
    def to_docs() -> ResponseReturnValue:
        return redirect(url_for("flasgger.apidocs"))

    declare(app, dict.fromkeys(_PAGES, Route(access=Access(opened_by="open_docs"))))
    declare(app, dict.fromkeys(_STATIC_FILES, Route(access=Access(OPEN))))


def _swagger_ui_files() -> Path:
    # Located without importing it: only its static files are needed.
    package = importlib.util.find_spec("swagger_ui")
    if package is None or package.origin is None:
        raise RuntimeError("The package swagger-ui-py is missing: pip install swagger-ui-py")
    return Path(package.origin).parent / "static"
