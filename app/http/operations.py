"""The operations of the OpenAPI document: what each rule of a route takes and answers.

A route says it for every model; the features, examples and limits are those of the models that are
served.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Literal

from marshmallow import Schema

from ..access.header_names import (
    FEATURE_WARNINGS,
    INFERENCE_HEADER_LENGTH,
    MODEL_VERSION,
    REQUEST_TIMEOUT,
)
from ..model.model import Model
from ..protocols.native.forms import FORM
from ..protocols.native.media_types import ANY_TYPE, JSON
from ..protocols.native.predictions import (
    CLASSES,
    ResponseBodies,
    all_response_bodies,
    response_bodies,
)
from ..protocols.native.schemas import PROBLEM
from ..protocols.open_inference.schemas import INFERENCE_REQUEST, OPEN_INFERENCE_ERROR
from ..protocols.torchserve import TORCHSERVE_ERROR, is_torchserve
from ..settings import LimitSettings
from .handler_examples import BINARY, WHOLE_FORM, answer_content
from .handlers import largest_batch
from .model_examples import example_prediction, example_request, example_sample
from .prediction_bodies import prediction_body
from .problems import is_open_inference, problem_type
from .routes import Description, Route

_ERRORS = {
    400: "The body is malformed, or its features don't match the model's.",
    404: "The model does not exist, or the requested version is not loaded.",
    408: "The body did not arrive in time.",
    413: "The body, the batch or its response is too large.",
    415: "The Content-Type or the Content-Encoding is not supported.",
    422: "The JSON has the wrong shape, or a value is not one of its feature's.",
    500: "Internal server error.",
    503: "No model is loaded, or the server is overloaded. Retry-After says when to retry.",
}
_WARNINGS = {
    FEATURE_WARNINGS: {
        "description": "Features whose values are outside the range of the training data.",
        "schema": {"type": "string"},
    }
}
_VERSION = {
    "name": MODEL_VERSION,
    "in": "header",
    "description": "The version of the model to use. It must be loaded, or the response is 404.",
    "schema": {"type": "string"},
}
_PATH_VERSION: dict[str, Any] = {
    "name": "version",
    "in": "path",
    "required": True,
    "description": "The version of the model to use. It must be loaded, or the response is 404.",
    "schema": {"type": "string"},
}
_TIMEOUT = {
    "name": REQUEST_TIMEOUT,
    "in": "header",
    "description": "How many milliseconds the request may wait in the queue, if fewer than the "
    "server's own limit. If it would wait longer, the response is 503.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
}
_JSON_BYTES = {
    "name": INFERENCE_HEADER_LENGTH,
    "in": "header",
    "description": "How many bytes of the body are JSON, if tensors in binary follow; 0 if the "
    "body is the data of the only input.",
    "schema": {"type": "integer", "minimum": 0},
}
_TOP = {
    "name": "top",
    "in": "query",
    "description": "How many of the most probable classes or labels each prediction lists; by "
    "default as many as the bundle says, or none.",
    "schema": {"type": "integer", "minimum": 0},
}
_ROUTING = {
    "in": "header",
    "description": "Identifies the caller: during a canary, a caller keeps to one version.",
    "schema": {"type": "string"},
}


class OperationBuilder:
    """Builds operations with the features, examples and limits of the first of ``models``, which
    is the default one.
    """

    def __init__(
        self, models: Mapping[str, Model | None], limits: LimitSettings, routing_header: str
    ) -> None:
        self._names = list(models)
        (model, *_) = self._models = list(models.values())
        self._largest_batch = largest_batch(model, limits) if model else limits.max_batch_size
        self._parameters = {
            "version": _VERSION,
            "routing": _ROUTING | {"name": routing_header},
            "timeout": _TIMEOUT,
            "json_bytes": _JSON_BYTES,
            "top": _TOP,
        }
        # A handler has parameters of its own.
        self._may_have_top = any(each is None or each.handler is None for each in self._models)
        self._sample = example_sample(model)
        self._inference = example_request(model, self._sample)
        self._prediction = example_prediction(model, self._sample)
        self._version_example = {"example": model.version} if model else {}

    def operation(self, name: str, route: Route, rule: str) -> dict[str, Any]:
        """Return the operation of the view ``name`` for one rule of its route."""
        description = route.description
        assert description is not None
        takes_name, takes_version = "<name>" in rule, "<version>" in rule
        is_by_name = takes_name and "<name>" not in route.rules[0]
        parameters = [
            self._parameters[each]
            for each in description.parameters
            if each != "top" or self._may_have_top
        ]
        if takes_version:
            parameters.insert(0, _PATH_VERSION | self._version_example)
        if takes_name:
            parameters.insert(0, self._name_parameter())
        operation: dict[str, Any] = {
            "summary": description.summary + " (model by name)" * is_by_name,
            "tags": [description.tag],
            "operationId": name + "_by_name" * is_by_name + "_of_version" * takes_version,
            **({"parameters": parameters} if parameters else {}),
        }
        if description.body is not None or description.body_types:
            operation["requestBody"] = self._request_body(description, is_by_name=takes_name)
        operation["responses"] = self._responses(description, rule, is_by_name=takes_name)
        return operation

    def _name_parameter(self) -> dict[str, Any]:
        # No enumeration while the name of a model is unknown.
        known = {"enum": self._names} if all(self._names) else {}
        return {
            "name": "name",
            "in": "path",
            "required": True,
            "schema": {"type": "string"} | known,
        }

    def _request_body(self, description: Description, *, is_by_name: bool) -> dict[str, Any]:
        body = description.body
        if isinstance(body, str):
            return self._body(body, is_by_name=is_by_name)
        content: dict[str, Any] = {} if body is None else {JSON: {"schema": _reference(body)}}
        if body is INFERENCE_REQUEST and self._inference:
            content[JSON]["example"] = self._inference
        types = description.body_types
        if ANY_TYPE in types and any(map(_takes_forms, self._models)):
            content[FORM] = {"schema": dict(WHOLE_FORM)}
        for media_type in types:
            content[media_type] = {"schema": dict(BINARY)}
        return {"required": description.requires_body, "content": content}

    def _body(self, member: Literal["features", "samples"], *, is_by_name: bool) -> dict[str, Any]:
        by_schema = dict(zip(("", *self._names[1:]), self._models, strict=True))
        if not is_by_name or len(self._names) == 1:
            by_schema = {"": self._models[0]}
        largest = f"At most {self._largest_batch:,} samples; the response to more is 413."
        if len(by_schema) > 1:
            largest = "At most the model's max_batch_size samples; the response to more is 413."
        return prediction_body(member, by_schema, largest, self._sample)

    def _responses(
        self, description: Description, rule: str, *, is_by_name: bool
    ) -> dict[str, Any]:
        content: dict[str, Any] = {}
        if isinstance(description.body, str):
            content = self._prediction_content(description.body, is_by_name=is_by_name)
        elif description.schema is not None:
            content[JSON] = {"schema": _reference(description.schema)}
        for media_type in description.media_types:
            content[media_type] = {"schema": {} if media_type == ANY_TYPE else {"type": "string"}}
        answer: dict[str, Any] = {
            "description": description.explains or f"{description.summary}.",
            "content": content,
        }
        if description.body is not None:
            answer["headers"] = _WARNINGS
        responses = {"200": answer, **_problems(rule, description.errors)}
        for status, (explains, schema) in description.also.items():
            content = {JSON: {"schema": _reference(schema)}}
            responses[str(status)] = {"description": explains, "content": content}
        return responses

    def _prediction_content(self, body: str, *, is_by_name: bool) -> dict[str, Any]:
        """Return the content of the response to a prediction."""
        model, *others = self._models
        if model is not None and model.handler is not None and not (is_by_name and others):
            return answer_content(body, model)
        content = {JSON: {"schema": self._prediction_schema(body, is_by_name)}}
        example = self._example_of(body)
        if example is not None:
            content[JSON]["example"] = example
        return content

    def _prediction_schema(self, body: str, is_by_name: bool) -> dict[str, Any]:
        """Return the schema of a prediction by the models that may answer."""
        models = self._models if is_by_name else self._models[:1]
        schemas = [
            bodies.one if body == "features" else bodies.many
            for model in models
            for bodies in answers_of(model)
        ]
        references = {name_of(schema): _reference(schema) for schema in schemas}
        if any(model is not None and model.handler is not None for model in models):
            return {"description": "What the handler of the model answers."}
        first, *others = references.values()
        return {"oneOf": [first, *others]} if others else first

    def _example_of(self, body: str) -> dict[str, Any] | None:
        prediction = self._prediction
        if prediction is None or body == "features":
            return prediction
        return {
            "predictions": [prediction] * 2,
            "total_samples": 2,
            "model_version": prediction["model_version"],
        }


def _takes_forms(model: Model | None) -> bool:
    """Return True if a field of a form may be a whole sample of ``model``, or it isn't known."""
    return model is None or model.steps is not None or model.handler is not None


def _reference(schema: Schema) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{name_of(schema)}"}
    return {"type": "array", "items": reference} if schema.many else reference


def _problems(rule: str, statuses: Iterable[int]) -> dict[str, Any]:
    described = ((status, _ERRORS.get(status, HTTPStatus(status).phrase)) for status in statuses)
    return {str(status): problem_response(rule, description) for status, description in described}


def problem_response(rule: str, description: str) -> dict[str, Any]:
    """Return the response of a problem document to a request for ``rule``."""
    schema: Schema = OPEN_INFERENCE_ERROR if is_open_inference(rule) else PROBLEM
    if is_torchserve(rule):
        schema = TORCHSERVE_ERROR
    return {
        "description": description,
        "content": {problem_type(rule): {"schema": _reference(schema)}},
    }


def answers_of(model: Model | None) -> list[ResponseBodies]:
    """Return the bodies of the predictions of ``model``: those of any task if there is none, and
    those of classes where it has no predictions.
    """
    if model is None:
        return [*all_response_bodies()]
    if model.handler is not None:
        return []
    return [response_bodies(model) if model.takes_samples else CLASSES]


def name_of(schema: Schema) -> str:
    """Return the name of a schema in the document."""
    return type(schema).__name__.removesuffix("Schema")
