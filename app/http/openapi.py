"""The OpenAPI 3.0.3 document, made by apispec from the schemas and the declared routes.

It is built from the loaded model, so its features and examples are real.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from ..access.guard import ANY_KEY, OPEN, Guard
from ..access.header_names import API_KEY, AUTHORIZATION, RETRY_AFTER
from ..model.model import Model
from ..protocols.native.schemas import PROBLEM
from ..protocols.open_inference.schemas import OPEN_INFERENCE_ERROR
from ..protocols.torchserve import TORCHSERVE_ERROR
from ..settings import LimitSettings
from ..version import __version__
from .model_examples import describe_model, features_schema
from .operations import OperationBuilder, answers_of, name_of, problem_response
from .prediction_bodies import sample_name
from .routes import Route

_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": f"{AUTHORIZATION}: Bearer KEY"},
    "header": {"type": "apiKey", "in": "header", "name": API_KEY},
}
_RETRY_AFTER = {
    RETRY_AFTER: {
        "description": "Seconds until the next request is allowed.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}


def build_document(
    models: Mapping[str, Model | None],
    routes: Mapping[str, Route],
    limits: LimitSettings,
    routing_header: str,
) -> dict[str, Any]:
    """Return the OpenAPI document of a service with ``models``, by name; None if one isn't loaded.

    The first is the default model. ``routes`` are the declared routes by their endpoints.
    """
    (model, *others) = models.values()
    spec = APISpec(
        title="Lantern",
        version=__version__,
        openapi_version="3.0.3",
        info={"description": describe_model(model)},
        plugins=[MarshmallowPlugin()],
    )
    described = [(name, route) for name, route in routes.items() if route.description]
    for name, schema in _schemas((route for _, route in described), models.values()):
        spec.components.schema(name, schema=schema)
    for name, each in zip(("", *list(models)[1:]), (model, *others), strict=True):
        spec.components.schema(sample_name(name), component=features_schema(each))
    build = OperationBuilder(models, limits, routing_header)
    for endpoint, route in described:
        for rule in route.rules:
            operation = build.operation(endpoint.rpartition(".")[2], route, rule)
            path = rule.replace("<", "{").replace(">", "}")
            spec.path(path, operations=dict(_by_method(operation, route.methods)))
    document: dict[str, Any] = spec.to_dict()
    return document


def _by_method(
    operation: dict[str, Any], methods: Iterable[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the operation of each method; those after the first have names of their own."""
    name = operation["operationId"]
    for number, method in enumerate(map(str.lower, methods)):
        yield method, operation | {"operationId": f"{name}_{method}" if number else name}


def _schemas(
    routes: Iterable[Route], models: Iterable[Model | None]
) -> Iterator[tuple[str, Schema]]:
    """Yield the schemas of the routes' responses with their names, each once, of predictions by
    ``models``, and of problems.
    """
    found: dict[str, Schema] = {}
    for model in models:
        for bodies in answers_of(model):
            found[name_of(bodies.one)] = bodies.one
            found[name_of(bodies.many)] = bodies.many
    for route in routes:
        assert route.description is not None
        others = (schema for _, schema in route.description.also.values())
        for schema in (route.description.schema, route.description.body, *others):
            if isinstance(schema, Schema):
                found[name_of(schema)] = schema
    for schema in (PROBLEM, OPEN_INFERENCE_ERROR, TORCHSERVE_ERROR):
        found[name_of(schema)] = schema
    yield from found.items()


def describe_access(document: dict[str, Any], guard: Guard) -> None:
    """Add to ``document`` what ``guard`` requires now: keys, scopes, and a rate."""
    if guard.keys_required:
        document["components"]["securitySchemes"] = _SECURITY_SCHEMES
    for path, operations in document["paths"].items():
        rule = path.replace("{", "<").replace("}", ">")
        scope = guard.required_scope(rule)
        for operation in operations.values():
            responses = operation["responses"]
            refused: dict[str, str] = {}
            if scope != OPEN:
                operation["security"] = [{name: []} for name in _SECURITY_SCHEMES]
                refused |= {
                    "400": _or(responses, "400", "Two different keys were sent."),
                    "401": "The API key is missing, unknown, revoked or expired.",
                    "503": _or(responses, "503", "The server can't read its keys."),
                }
            if scope not in (OPEN, ANY_KEY):
                refused["403"] = f"The API key lacks the scope {scope}."
            if guard.has_rate_limit and guard.is_rate_limited(rule):
                refused["429"] = "The caller's rate limit is exceeded."
            responses |= {
                status: problem_response(rule, reason) for status, reason in refused.items()
            }
            if "429" in refused:
                responses["429"]["headers"] = _RETRY_AFTER


def _or(responses: Mapping[str, Any], status: str, reason: str) -> str:
    """Return the description of ``status``, if there is one already, followed by ``reason``."""
    known = responses.get(status)
    return f"{known['description']} {reason}" if known else reason
