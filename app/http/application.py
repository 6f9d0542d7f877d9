"""Flask, with parts of Lantern's own where its documentation lets subclasses replace them.

Views and hooks see what Flask promises them; only its cost for each request differs. Predictions
take this way if `app.http.fast_path` is turned off, so that hooks see them; all else always does.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import CO_COROUTINE
from types import FunctionType
from typing import Any

import flask
from flask import Flask
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from werkzeug.routing import MapAdapter

from .response import Response
from .url_map import UrlMap


class Request(flask.Request):
    """Flask's request, which looks for files to close only if it has read some."""

    def close(self) -> None:
        """Close the files of the request."""
        if "files" in vars(self):
            super().close()


class Sessions(SecureCookieSessionInterface):
    """Flask's sessions in cookies, which verify no signature if there is no cookie."""

    def open_session(self, app: Flask, request: flask.Request) -> SecureCookieSession | None:
        """Return the session of ``request``, or None if there is no secret key."""
        if "HTTP_COOKIE" in request.environ:
            return super().open_session(app, request)
        return self.session_class() if app.secret_key else None


class Application(Flask):
    """A Flask application whose requests cost less."""

    url_map_class = UrlMap
    request_class = Request
    response_class = Response
    session_interface = Sessions()

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        """Return the adapter of a request; see `flask.Flask.create_url_adapter`.

        Flask determines the host first, in order to compare it with those that are trusted.
        """
        if (
            request is None
            or self.config["TRUSTED_HOSTS"] is not None
            or request.trusted_hosts is not None
            or self.config["SERVER_NAME"] is not None
            or self.subdomain_matching
            or self.url_map.host_matching
        ):
            return super().create_url_adapter(request)
        subdomain = self.url_map.default_subdomain or ""
        return self.url_map.bind_to_environ(request.environ, subdomain=subdomain)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``func``, or what runs it if it is a coroutine function.

        Called for each hook of each request. A plain function needs none of what Flask looks for:
        wrappers, partial functions and marks, which are attributes.
        """
        if (
            type(func) is FunctionType
            and not func.__code__.co_flags & CO_COROUTINE
            and not func.__dict__
        ):
            return func
        return super().ensure_sync(func)
