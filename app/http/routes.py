"""Routes: all there is to say of an endpoint is said once, at its view.

A view is registered by `route`, instead of Flask's own decorator. What it declares is read where it
is needed: its scope by the guard, its handler by the fast path, its description by the OpenAPI
document.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
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
_WITHOUT_BODY = {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True, slots=True)
class Description:
    """What the OpenAPI document says of a route.

    ``schema`` is that of the answer; ``explains`` says what it is, where the summary doesn't.
    ``body`` is the member that the request's JSON has, and ``parameters`` names those of
    `app.http.openapi`. ``errors`` are the statuses of problems, ``also`` other answers by their
    status: what they are, and their schema. ``media_types`` are those of the answer beside JSON, or
    all of them where there is no schema.
    """

    summary: str
    tag: str
    schema: Schema | None = None
    explains: str = ""
    body: Literal["features", "samples"] | None = None
    parameters: tuple[str, ...] = ()
    errors: tuple[int, ...] = (500,)
    also: Mapping[int, tuple[str, Schema]] = field(default_factory=dict)
    media_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """The declaration of an endpoint.

    Of its ``rules`` the first is for the first model, and one with ``<name>`` for the model of that
    name. ``access`` says who may ask. ``handler`` is what the fast path calls in place of the view;
    see `app.http.handlers`. Without a ``description`` the OpenAPI document leaves it out.
    """

    access: Access
    rules: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("GET",)
    handler: Handler | None = None
    description: Description | None = None


def route(
    blueprint: Blueprint,
    *rules: str,
    access: Access,
    methods: tuple[str, ...] = ("GET",),
    handler: Handler | None = None,
    description: Description | None = None,
) -> Callable[[View], View]:
    """Register a view for ``rules`` on ``blueprint``, and declare what a `Route` says of it."""

    def register(view: View) -> View:
        for rule in rules:
            blueprint.add_url_rule(rule, view.__name__, view, methods=methods)
        declared = Route(access, rules, methods, handler, description)
        endpoint = f"{blueprint.name}.{view.__name__}"
        blueprint.record(lambda state: declare(state.app, {endpoint: declared}))
        return view

    return register


def declare(app: App, routes: Mapping[str, Route]) -> None:
    """Declare routes by their endpoints: those of extensions, which know no `route`."""
    app.extensions.setdefault(_DECLARED, {}).update(routes)


def declared(app: App) -> Mapping[str, Route]:
    """Return the routes of ``app`` by their endpoints."""
    routes: dict[str, Route] = app.extensions.get(_DECLARED, {})
    return routes


def access_by_rule(app: App) -> Iterator[tuple[str, Access]]:
    """Return each rule of ``app`` that is declared, and who may ask for it."""
    routes = declared(app)
    for rule in app.url_map.iter_rules():
        if rule.endpoint in routes:
            yield rule.rule, routes[rule.endpoint].access


class Found(NamedTuple):
    """The route of a path: its rule, its declaration, and the model that it is for."""

    rule: str
    route: Route
    service: ModelService


class RouteTable:
    """Finds the declared routes of ``app`` by their paths, without a matcher.

    It knows the paths that stand for themselves, and those of the models whose names are known by
    now; where it finds nothing, Flask may still.
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
        self._unnamed = list(services)
        self._add_named()

    def find(self, path: str) -> Found | None:
        """Return the route of ``path``; None where it can't be told from a table."""
        if self._unnamed:
            self._add_named()
        return self._found.get(path)

    def _add_named(self) -> None:
        for service in [service for service in self._unnamed if service.name]:
            self._unnamed.remove(service)
            for rule, route in self._rules:
                path = rule.replace("<name>", service.name)
                if path != rule and "<" not in path:
                    self._found[path] = Found(rule, route, service)


def takes_body(found: Found | None, method: str) -> bool:
    """Return True if a request of ``method`` for a route has a body that is read."""
    return found is not None and method in found.route.methods and method not in _WITHOUT_BODY
