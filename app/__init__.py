"""Lantern serves trained models over HTTP; this module is the application factory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from flask import Flask

    from .settings import Settings

__all__ = ["__version__", "create_app"]


def create_app(settings: Settings | None = None) -> Flask:
    """Create the application: settings -> extensions -> blueprints -> errors -> documentation,
    then the fast path of predictions, and around all of it the middleware that admits requests.

    The model is not loaded here but in each worker, after the fork (``post_fork`` in
    ``server/gunicorn_config.py``); a process that is not one of Gunicorn's loads it when
    it is first asked for. Raises `SettingsError` if ``settings`` are not given and those in force
    are invalid.
    """
    # Imported here so that `app.client` and `app.model` don't import the web stack.
    from . import blueprints, cli
    from .http import admission, documentation, errors, hooks
    from .http.application import Application
    from .http.body import OrjsonProvider
    from .http.completion import CompletionMiddleware
    from .http.direct import DirectCalls
    from .http.extension import Lantern
    from .http.fast_path import FastPath
    from .http.routes import RouteTable, access_by_rule
    from .settings import load_settings
    from .telemetry import lines, logs

    settings = settings or load_settings()
    app = Application(__name__, static_url_path="/static")
    app.json = OrjsonProvider(app)
    # For hooks that read a body. One byte more: werkzeug cuts a chunked body there without a word.
    app.config["MAX_CONTENT_LENGTH"] = settings.limits.max_body_bytes + 1

    logs.configure_logging(settings.logging)
    lantern = Lantern.install(app, settings)
    lines.on_dropped(lantern.metrics.lines_dropped)
    for service in lantern.services:
        service.import_libraries()

    hooks.init_app(app)
    blueprints.init_app(app)
    errors.init_app(app)
    documentation.init_app(app)
    cli.init_app(app)
    table = RouteTable(app, lantern.services)
    lantern.guard.set_rules(access_by_rule(app))
    app.wsgi_app = CompletionMiddleware(app.wsgi_app, lantern.metrics)  # type: ignore[method-assign]
    fast_path = FastPath(app.wsgi_app, lantern, table) if settings.server.fast_path else None
    if fast_path is not None:
        app.wsgi_app = fast_path  # type: ignore[method-assign]
    admits = admission.init_app(app, lantern, table)
    if fast_path is not None:
        lantern.direct_calls = DirectCalls(app, lantern, admits, fast_path)
    return app
