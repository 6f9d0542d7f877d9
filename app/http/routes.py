"""Routes: everything about an endpoint is declared once, at its view.

The decorator `route` replaces Flask's own. The guard reads the scope from the declaration, the fast
path the handler, and the OpenAPI document the description.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

from flask import Blueprint
from flask.sansio.app import App
from marshmallow import Schema

from ..access.guard import Access
from ..registry.service import ModelService

View = TypeVar("View", bound=Callable[..., Any])
Handler = Callable[..., Any]

PREDICTION_ERRORS = (400, 404, 408, 413, 415, 422, 500, 503)
_DECLARED = "lantern.routes"
_VERSION = "/<version>"
_WITHOUT_BODY = {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True, slots=True)
class Description:
    """The description of a route in the OpenAPI document.

    ``schema`` is that of the response, and ``explains`` describes it; the default is the summary.
    ``body`` is the member of the request's JSON, or its schema; ``body_types`` are further media
    types of it, or all of them, and ``requires_body`` is False if it may be missing. ``parameters``
    are names of parameters in `app.http.operations`. ``errors`` are the statuses whose body is a
    problem document, and ``also`` maps other statuses to a description and a schema.
    ``media_types`` are those of the response beside JSON, or all of them if there is no schema.
    """

    summary: str
    tag: str
    schema: Schema | None = None
    explains: str = ""
    body: Literal["features", "samples"] | Schema | None = None
    requires_body: bool = True
    body_types: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    errors: tuple[int, ...] = (500,)
    also: Mapping[int, tuple[str, Schema]] = field(default_factory=dict)
    media_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """The declaration of an endpoint.

    A rule with ``<name>`` is for the model of that name, one without for the default model.
    ``access`` is who may call it. ``handler`` is what the fast path calls instead of the view; see
    `app.http.handlers`. With ``may_lack_type`` its body needs no Content-Type. A route without a
    ``description`` is not in the OpenAPI document.
    """

    access: Access
    rules: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("GET",)
    handler: Handler | None = None
    may_lack_type: bool = False
    description: Description | None = None

    @property
    def predicts(self) -> bool:
        """True if its requests run a model."""
        return self.handler is not None


def route(
    blueprint: Blueprint,
    *rules: str,
    access: Access,
    methods: tuple[str, ...] = ("GET",),
    handler: Handler | None = None,
    may_lack_type: bool = False,
    description: Description | None = None,
) -> Callable[[View], View]:
    """Register a view for ``rules`` on ``blueprint``, and declare its `Route`."""

    def register(view: View) -> View:
        for rule in rules:
            # With or without the last slash, because not every client follows a redirect.
            strict = False if rule.endswith("/") else None
            blueprint.add_url_rule(
                rule, view.__name__, view, methods=methods, strict_slashes=strict
            )
        declared = Route(access, rules, methods, handler, may_lack_type, description)
        endpoint = f"{blueprint.name}.{view.__name__}"
        blueprint.record(lambda state: declare(state.app, {endpoint: declared}))
        return view

    return register


def declare(app: App, routes: Mapping[str, Route]) -> None:
    """Declare routes by their endpoints: for extensions, which don't use `route`."""
    app.extensions.setdefault(_DECLARED, {}).update(routes)


def declared(app: App) -> Mapping[str, Route]:
    """Return the routes of ``app`` by their endpoints."""
    routes: dict[str, Route] = app.extensions.get(_DECLARED, {})
    return routes


def access_by_rule(app: App) -> Iterator[tuple[str, Access]]:
    """Yield each declared rule of ``app`` with its `Access`."""
    routes = declared(app)
    for rule in app.url_map.iter_rules():
        if rule.endpoint in routes:
            yield rule.rule, routes[rule.endpoint].access


class Found(NamedTuple):
    """The route of a path: its rule, its declaration, and the service that it is for.

    ``is_pinned`` is True if the path also has a version of the model.
    """

    rule: str
    route: Route
    service: ModelService
    is_pinned: bool = False


class RouteTable:
    """Finds the declared routes of ``app`` by their paths, in a dictionary.

    It has the paths of rules without variables, and those of the models whose names are known yet,
    with any version. A path that is not found may still match in Flask.
    """

    def __init__(self, app: App, services: Collection[ModelService]) -> None:
        routes = declared(app)
        self._rules = [
            (rule.rule, routes[rule.endpoint])
            for rule in app.url_map.iter_rules()
            if rule.endpoint in routes
        ]
        (first, *_) = services
        self._found = {
            rule: Found(rule, route, first) for rule, route in self._rules if "<" not in rule
        }
        self._to_version = _pattern_to_version(rule for rule, _ in self._rules)
        self._unnamed = list(services)
        self._add_named()

    def find(self, path: str) -> Found | None:
        """Return the route of ``path``, or None if it is not in the table."""
        if self._unnamed:
            self._add_named()
        found = self._found.get(path)
        if found is None and path.startswith("//"):  # werkzeug takes them for one slash
            return self.find("/" + path.lstrip("/"))
        if found is None and (to_version := self._to_version.match(path)):
            found = self._found.get(f"{to_version[1]}{_VERSION}{path[to_version.end() :]}")
        return found

    def declares(self, rule: str) -> bool:
        """Return True if ``rule`` is declared, be it of a model that is not there."""
        return any(rule == known for known, _ in self._rules)

    def _add_named(self) -> None:
        named = [service for service in self._unnamed if service.name]
        for service in named:
            for rule, route in self._rules:
                path = rule.replace("<name>", service.name)
                if path != rule:
                    self._found[path] = Found(rule, route, service, _VERSION in path)
        # Replaced and not changed: another thread may be doing the same.
        self._unnamed = [service for service in self._unnamed if service not in named]


def _pattern_to_version(rules: Iterable[str]) -> re.Pattern[str]:
    """Return what a path begins with that has a version of a model, by the ``rules`` that have one:
    what is before the version, as a group, and the version.
    """
    before = sorted({rule.partition(_VERSION)[0] for rule in rules if _VERSION in rule})
    either = "|".join(re.escape(each).replace("<name>", "[^/]+") for each in before)
    return re.compile(f"({either})/[^/]+")


def may_take_body(method: str) -> bool:
    """Return True if the view of a route may read the body of a request of ``method``."""
    return method not in _WITHOUT_BODY
