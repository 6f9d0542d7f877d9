"""The views, one module for each noun: a view loads the payload, calls the service, and replies."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register every blueprint."""
    from . import batch, health, info, metrics, open_inference, predict, torchserve

    for module in (info, health, predict, batch, open_inference, torchserve, metrics):
        app.register_blueprint(module.blueprint)
