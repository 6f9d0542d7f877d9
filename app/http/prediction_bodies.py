"""The request bodies of predictions in the OpenAPI document: JSON, and for models with steps
images, texts and forms, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ..model.model import Model
from ..model.steps.declaration import IMAGE
from ..protocols.native.forms import FORM
from ..protocols.native.media import MediaBodies
from ..protocols.native.media_types import ANY_TYPE, JSON
from ..protocols.native.sample_schemas import sample_schema
from .handler_examples import BINARY, WHOLE_FORM, request_content

Member = Literal["features", "samples"]
_TEXT: Mapping[str, Any] = {"type": "string"}


def sample_name(model: str) -> str:
    """Return the name of the schema of a model's samples; empty for the default model."""
    return f"Features-{model}" if model else "Features"


def prediction_body(
    member: Member, models: Mapping[str, Model | None], largest: str, sample: Any
) -> dict[str, Any]:
    """Return the request body of a prediction for one sample, or for many.

    ``models`` are those that may be asked, by the names of the schemas of their samples, and
    ``largest`` says how many samples a batch may have. ``sample`` is an example of one, if that is
    not empty.
    """
    (model, *others) = models.values()
    if not others and model is not None and model.handler is not None:
        return {"required": True, "content": request_content(member, model, largest)}
    schemas: list[dict[str, Any]] = []
    content: dict[str, Any] = {JSON: {}}
    for name, model in models.items():
        if model is not None and model.handler is not None:
            if member == "features":
                content[ANY_TYPE] = {"schema": dict(BINARY)}
                content[FORM] = {"schema": dict(WHOLE_FORM)}
                schemas.append({})
                continue
            content[FORM] = {"schema": _form_of_many({"data": dict(_TEXT)})}
        reference = {"$ref": f"#/components/schemas/{sample_name(name)}"}
        takes_media = model is not None and model.steps is not None
        schema = _in_json(member, reference, largest, is_bare=takes_media)
        if schema not in schemas:
            schemas.append(schema)
        if takes_media:
            assert model is not None
            content |= dict(_in_other_forms(member, model))
    content[JSON]["schema"] = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    if sample and len(models) == 1:
        (model,) = models.values()
        is_bare = model is not None and model.steps is not None
        content[JSON]["example"] = _wrapped(member, sample, is_bare=is_bare)
    return {"required": True, "content": content}


def media_schema(model: Model) -> dict[str, Any]:
    """Return the schema of one sample of a model with steps."""
    assert model.steps is not None
    members = sample_schema(model.steps.members).fields
    return {
        "type": "object",
        "properties": {name: {**_TEXT, **field.metadata} for name, field in members.items()},
        "required": [name for name, field in members.items() if field.required],
        "additionalProperties": False,
    }


def _wrapped(member: Member, sample: Any, *, is_bare: bool) -> Any:
    if member == "samples":
        return {"samples": [sample, sample]}
    return sample if is_bare else {"features": sample}


def _in_json(
    member: Member, sample: dict[str, Any], largest: str, *, is_bare: bool
) -> dict[str, Any]:
    if is_bare and member == "features":
        return sample
    if member == "samples":
        # Not as maxItems: a larger batch is valid by the schema, and its response is 413.
        sample = {"type": "array", "description": largest, "items": sample}
    return {
        "type": "object",
        "properties": {member: sample},
        "required": [member],
        "additionalProperties": False,
    }


def _in_other_forms(member: Member, model: Model) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the other media types of a body for a model with steps, with their schemas."""
    assert model.steps is not None
    bodies = MediaBodies.of(model.steps.members, max_samples=1)
    body = bodies.predict if member == "features" else bodies.batch
    for media_type in body.media_types.names:
        if media_type == FORM:
            fields: dict[str, Any] = {
                name: dict(BINARY if name == IMAGE else _TEXT) for name in model.steps.members
            }
            if len(fields) == 1:
                (only,) = fields.values()
                fields = {"data": only}
            one = {
                "type": "object",
                "properties": fields,
                "required": [*fields],
                "additionalProperties": False,
            }
            yield media_type, {"schema": _form_of_many(fields) if member == "samples" else one}
        elif media_type != JSON:
            yield media_type, {"schema": dict(_TEXT if media_type == "text/plain" else BINARY)}


def _form_of_many(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a form in which each of ``fields`` may occur several times."""
    several = {
        name: {"type": "array", "items": each, "minItems": 1} for name, each in fields.items()
    }
    return {
        "type": "object",
        "properties": several,
        "required": [*fields],
        "additionalProperties": False,
    }
