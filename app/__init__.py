"""Lantern serves a trained PyTorch classifier over HTTP; this module is the application factory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.settings import Settings

__version__ = "0.1.0"


def create_app(settings: Settings | None = None) -> Flask:
    """Make the application: settings -> extensions -> blueprints -> errors -> documentation,
    then the short path of predictions, and in front of all the one that lets requests in.

    The model is not loaded here but in each worker, after the fork (see ``gunicorn.conf.py``); a
    process that is not one of Gunicorn's loads it when it is first asked for. Raises
    `SettingsError` when ``settings`` are not given and those in force can't be used.
    """
    # Imported here so that `app.client` and `app.model` need nothing of the web stack.
    from flask import Flask

    from app import blueprints, cli, docs, errors, front
    from app.extension import Lantern
    from app.settings import load_settings
    from app.short_path import ShortPath
    from app.telemetry import lines, logs, requests
    from app.wire import OrjsonProvider

    settings = settings or load_settings()
    app = Flask(__name__, static_url_path="/static")
    app.json = OrjsonProvider(app)

    logs.configure_logging(settings.logging)
    parts = Lantern.install(app, settings)
    lines.when_dropped(parts.metrics.lines_dropped)
    for service in parts.models:
        service.import_libraries()

    requests.init_app(app)
    blueprints.init_app(app)
    errors.init_app(app)
    docs.init_app(app)
    cli.init_app(app)
    if settings.server.short_path:
        app.wsgi_app = ShortPath(app.wsgi_app, parts)  # type: ignore[method-assign]
    front.init_app(app, parts)
    return app
