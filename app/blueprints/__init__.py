"""The views, one module a noun. A view loads the payload, asks the service, dumps the answer."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register every blueprint."""
    from . import batch, health, info, metrics, predict

    for module in (info, health, predict, batch, metrics):
        app.register_blueprint(module.blueprint)
