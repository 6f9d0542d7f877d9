"""OpenAPI 3.0.3 from the schemas (apispec), shown by flasgger with a current Swagger UI.

The document is built from the model that is loaded, so its features and examples are real. The
page asks no other host for anything: its files come from the package ``swagger-ui-py``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flasgger import Swagger
from flask import Flask, redirect, request, url_for
from flask.typing import ResponseReturnValue

from app import __version__
from app.access.guard import ANY_KEY, OPEN, Guard
from app.extension import lantern
from app.model.errors import NonFiniteOutput
from app.model.features import FLOAT32_OVERFLOW, Feature
from app.model.model import Model
from app.overload import TIMEOUT_HEADER
from app.predicting import VERSION_HEADER, largest_batch
from app.problems import PROBLEM_JSON
from app.schemas import (
    BATCH_RESPONSE,
    HEALTH,
    LINKS,
    MODEL_INFO,
    MODELS,
    PREDICTION,
    PROBE,
    PROBLEM,
)
from app.settings import LimitSettings
from app.telemetry.metrics import CONTENT_TYPE
from app.telemetry.predictions import WARNINGS_HEADER
from app.wire import JSON

_REFUSALS = {
    400: "The body isn't JSON, or the features aren't exactly the model's.",
    404: "No such model, or the version that was asked for is not loaded.",
    408: "The body did not arrive in time.",
    413: "The body, the batch, or the answer to it, is too large.",
    415: "The body isn't declared as JSON.",
    422: "JSON of the wrong shape, or a value that isn't a finite number.",
    500: "A fault of ours.",
    503: "No model is loaded, or there is too much to do: Retry-After says when to come again.",
}
_MOST_SHOWN = 100
"""So many classes are named, and shown in an example; those of a model with more only in part."""
_MOST_DESCRIBED = 1000
"""So many features are described one by one: the document is built for each who asks for it."""
_PREDICT_REFUSALS = (400, 404, 408, 413, 415, 422, 500, 503)
_WARNINGS = {
    WARNINGS_HEADER: {
        "description": "The features with a value outside the range seen in training.",
        "schema": {"type": "string"},
    }
}


_VERSION = {
    "name": VERSION_HEADER,
    "in": "header",
    "description": "Ask for a version that is loaded; 404 for any other.",
    "schema": {"type": "string"},
}
_TIMEOUT = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "description": "How long the request may wait for its turn, where less than the service's "
    "own limit; 503 at once if it would be longer.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
}
_ROUTING = {
    "in": "header",
    "description": "Which caller this is: one caller stays on one side of a canary.",
    "schema": {"type": "string"},
}


_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Whole seconds until the next request is let in.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}


class Documentation(Swagger):  # type: ignore[misc]
    """Flasgger's page and routes around a document of our own."""

    def get_apispecs(self, endpoint: str = "openapi") -> dict[str, Any]:
        """Return the OpenAPI document for the model that is loaded now, under the prefix of the
        request that is handled.
        """
        parts = lantern()
        # In this order: what is loaded for this may be what has the name.
        loaded = [(service.loaded, service.name) for service in parts.models]
        models = {name: model for model, name in loaded}
        settings = parts.settings
        document = openapi(models, settings.limits, settings.release.routing_header)
        describe_access(document, parts.guard)
        if request.script_root:
            document["servers"] = [{"url": request.script_root}]
        return document


def init_app(app: Flask) -> None:
    """Serve the document at ``/openapi.json`` and the page at ``/docs``."""
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


def openapi(
    models: Mapping[str, Model | None], limits: LimitSettings, routing_header: str
) -> dict[str, Any]:
    """Build the OpenAPI document of a service with ``models``, None being one that isn't loaded.

    The first is the one that calls without a name are for.
    """
    (model, *others) = models.values()
    spec = APISpec(
        title="Lantern",
        version=__version__,
        openapi_version="3.0.3",
        info={"description": _description(model)},
        plugins=[MarshmallowPlugin()],
    )
    for name, schema in (
        ("Prediction", PREDICTION),
        ("BatchResponse", BATCH_RESPONSE),
        ("Links", LINKS),
        ("Health", HEALTH),
        ("Probe", PROBE),
        ("ModelInfo", MODEL_INFO),
        ("Models", MODELS),
        ("Problem", PROBLEM),
    ):
        spec.components.schema(name, schema=schema)
    for name, each in zip(("", *list(models)[1:]), (model, *others), strict=True):
        features = each.manifest.features if each else ()
        spec.components.schema(_features_name(name), component=_features_schema(features))
    for path, method, operation in [
        *_operations(model, limits, routing_header),
        *_operations_by_name(list(models), _operations(model, limits, routing_header)),
    ]:
        spec.path(path, operations={method: operation})
    document: dict[str, Any] = spec.to_dict()
    return document


def describe_access(document: dict[str, Any], guard: Guard) -> None:
    """Add to ``document`` what ``guard`` looks at now: keys, scopes, and the rate."""
    if guard.keys_required:
        document["components"]["securitySchemes"] = _SECURITY_SCHEMES
    for path, operations in document["paths"].items():
        rule = path.replace("{", "<").replace("}", ">")
        need = guard.need_of(rule)
        for operation in operations.values():
            responses = operation["responses"]
            if need != OPEN:
                operation["security"] = [{name: []} for name in _SECURITY_SCHEMES]
                responses |= _problem("400", _or(responses, "400", "Two different keys."))
                responses |= _problem("401", "No key, or one that doesn't count.")
                responses |= _problem("503", _or(responses, "503", "The keys can't be read."))
            if need not in (OPEN, ANY_KEY):
                responses |= _problem("403", f"The key has not the scope {need}.")
            if guard.has_rate and guard.counts(rule):
                responses |= _problem("429", "More requests than the rate of a caller allows.")
                responses["429"]["headers"] = _RETRY_AFTER


def _or(responses: Mapping[str, Any], status: str, reason: str) -> str:
    """Say ``reason`` after what there is to say of ``status`` already."""
    known = responses.get(status)
    return f"{known['description']} {reason}" if known else reason


def _features_name(model: str) -> str:
    return f"Features-{model}" if model else "Features"


def _operations_by_name(
    names: list[str], unnamed: list[tuple[str, str, dict[str, Any]]]
) -> list[tuple[str, str, dict[str, Any]]]:
    """Describe the calls that name a model: those without a name, for each of them."""
    parameter = {
        "name": "name",
        "in": "path",
        "required": True,
        # Without an enumeration while a name is still to be learnt.
        "schema": {"type": "string"} | ({"enum": names} if all(names) else {}),
    }
    features = {
        "oneOf": [
            {"$ref": f"#/components/schemas/{_features_name(name)}"} for name in ("", *names[1:])
        ]
    }
    calls = {path: operation for path, _, operation in unnamed}
    described = []
    for path, like, method in (
        ("/models/{name}/predict", "/predict", "post"),
        ("/models/{name}/batch", "/predict/batch", "post"),
        ("/models/{name}/info", "/model/info", "get"),
    ):
        operation = calls[like]
        operation["operationId"] += "_by_name"
        operation["parameters"] = [parameter, *operation["parameters"]]
        operation["summary"] += ", by the model of that name"
        if len(names) > 1 and "requestBody" in operation:
            content = operation["requestBody"]["content"][JSON]
            content.pop("example", None)
            members = content["schema"]["properties"]
            if "features" in members:
                members["features"] = features
            else:
                members["samples"]["items"] = features
                members["samples"]["description"] = (
                    "At most max_batch_size of the model's info; more are answered 413."
                )
        described.append((path, method, operation))
    return described


def _operations(
    model: Model | None, limits: LimitSettings, routing_header: str
) -> list[tuple[str, str, dict[str, Any]]]:
    features = model.manifest.features if model else ()
    if len(features) > _MOST_DESCRIBED:
        features = ()
    sample = {feature.name: _example(feature) for feature in features}
    prediction = _example_prediction(model, sample)
    predictions = prediction and {
        "predictions": [prediction] * 2,
        "total_samples": 2,
        "model_version": prediction["model_version"],
    }
    predict = {
        "summary": "Classify one sample",
        "tags": ["Prediction"],
        "operationId": "predict",
        "parameters": [_VERSION, _ROUTING | {"name": routing_header}, _TIMEOUT],
        "requestBody": _body("features", {"$ref": "#/components/schemas/Features"}, sample or None),
        "responses": {
            **_answer(200, "The prediction.", "Prediction", _WARNINGS, prediction),
            **_problems(*_PREDICT_REFUSALS),
        },
    }
    largest = largest_batch(model, limits) if model else limits.max_batch_size
    samples = {
        "type": "array",
        # In words, not as maxItems: a larger batch is well-formed, and answered 413 for its size.
        "description": f"At most {largest:,} samples; more are answered 413.",
        "items": {"$ref": "#/components/schemas/Features"},
    }
    batch = {
        "summary": "Classify many samples, all or nothing",
        "tags": ["Prediction"],
        "operationId": "predict_batch",
        "parameters": [_VERSION, _ROUTING | {"name": routing_header}, _TIMEOUT],
        "requestBody": _body("samples", samples, [sample, sample] if sample else None),
        "responses": {
            **_answer(200, "The predictions, in order.", "BatchResponse", _WARNINGS, predictions),
            **_problems(*_PREDICT_REFUSALS),
        },
    }
    info = _get("model_info", "Describe the model", "Model", "ModelInfo", unavailable=True)
    info["parameters"] = [_VERSION]
    info["responses"].update(_problems(404))
    return [
        ("/predict", "post", predict),
        ("/predict/batch", "post", batch),
        ("/model/info", "get", info),
        ("/models", "get", _get("models", "List the models", "Model", "Models")),
        ("/health", "get", _health()),
        ("/health/live", "get", _get("live", "Whether the worker answers", "Health", "Probe")),
        (
            "/health/ready",
            "get",
            _get("ready", "Whether to send requests here", "Health", "Probe", unavailable=True),
        ),
        ("/metrics", "get", _metrics()),
        ("/", "get", _index()),
    ]


def _get(
    name: str, summary: str, tag: str, schema: str, *, unavailable: bool = False
) -> dict[str, Any]:
    refusals = (500, 503) if unavailable else (500,)
    return {
        "summary": summary,
        "tags": [tag],
        "operationId": name,
        "responses": {**_answer(200, summary + ".", schema), **_problems(*refusals)},
    }


def _health() -> dict[str, Any]:
    operation = _get("health", "Whether the worker is healthy", "Health", "Health")
    operation["responses"].update(_answer(503, "It is unhealthy, and says why.", "Health"))
    return operation


def _metrics() -> dict[str, Any]:
    operation = _get("metrics", "The metrics of all workers", "Service", "Links")
    operation["responses"]["200"] = {
        "description": "Prometheus's text format.",
        "content": {CONTENT_TYPE: {"schema": {"type": "string"}}},
    }
    return operation


def _index() -> dict[str, Any]:
    operation = _get("index", "Links to everything; a page for browsers", "Service", "Links")
    operation["responses"]["200"]["content"]["text/html"] = {"schema": {"type": "string"}}
    return operation


def _answer(
    status: int,
    description: str,
    schema: str,
    headers: dict[str, Any] | None = None,
    example: dict[str, Any] | None = None,
) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    if example:
        content["example"] = example
    answer: dict[str, Any] = {"description": description, "content": {JSON: content}}
    if headers:
        answer["headers"] = headers
    return {str(status): answer}


def _problems(*statuses: int) -> dict[str, Any]:
    described: dict[str, Any] = {}
    for status in statuses:
        described |= _problem(str(status), _REFUSALS.get(status, HTTPStatus(status).phrase))
    return described


def _problem(status: str, description: str) -> dict[str, Any]:
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": description, "content": content}}


def _body(member: str, schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "properties": {member: schema},
                    "required": [member],
                    "additionalProperties": False,
                },
                **({} if example is None else {"example": {member: example}}),
            }
        },
    }


def _features_schema(features: tuple[Feature, ...]) -> dict[str, Any]:
    if not features:
        return {"type": "object", "description": "No model is loaded: its features aren't known."}
    if len(features) > _MOST_DESCRIBED:
        return {
            "type": "object",
            "description": f"A number for each of {len(features):,} features: the model's info "
            "lists them.",
            "additionalProperties": {"type": "number", "nullable": True},
        }
    return {
        "type": "object",
        "properties": {feature.name: _feature_schema(feature) for feature in features},
        "required": [feature.name for feature in features],
        "additionalProperties": False,
    }


def _feature_schema(feature: Feature) -> dict[str, Any]:
    seen = (
        f"{feature.minimum:g} to {feature.maximum:g} in training"
        if feature.minimum is not None and feature.maximum is not None
        else ""
    )
    described = [part for part in (feature.description, feature.unit, seen) if part]
    schema: dict[str, Any] = {
        "type": "number",
        "description": "; ".join(described),
        # What is finite as float32; the range of training is advice, and no bound.
        "minimum": -FLOAT32_OVERFLOW,
        "exclusiveMinimum": True,
        "maximum": FLOAT32_OVERFLOW,
        "exclusiveMaximum": True,
        "example": _example(feature),
    }
    if feature.nullable:
        schema["nullable"] = True
    return schema


def _example(feature: Feature) -> float:
    value = next((v for v in (feature.example, feature.minimum) if v is not None), 0.0)
    return int(value) if value == int(value) else value


def _example_prediction(model: Model | None, sample: dict[str, float]) -> dict[str, Any] | None:
    """Return the model's real answer for the example, if it has one that can be read."""
    if model is None or len(model.classes) > _MOST_SHOWN or not sample:
        return None
    try:
        prediction = model.predict(model.encoder.encode(sample))
    except NonFiniteOutput:
        return None
    answer: dict[str, Any] = orjson.loads(PREDICTION.encode(prediction))
    return answer


def _description(model: Model | None) -> str:
    if model is None:
        return "No model is loaded."
    manifest = model.manifest
    shown = enumerate(manifest.classes[:_MOST_SHOWN])
    classes = ", ".join(f"`class_{i}` is {name!r}" for i, name in shown)
    more = len(manifest.classes) - _MOST_SHOWN
    return (
        f"Serves **{model.name}**, version {manifest.version}. {manifest.description}\n\n"
        f"Classes: {classes}{f', and {more:,} more' if more > 0 else ''}."
    )


def _swagger_ui_files() -> Path:
    # Found, not imported: only its static files are wanted.
    package = importlib.util.find_spec("swagger_ui")
    if package is None or package.origin is None:
        raise RuntimeError("The package swagger-ui-py is not installed; see requirements.txt.")
    return Path(package.origin).parent / "static"
