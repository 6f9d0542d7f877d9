"""TorchServe's inference API: what its callers send, and the answers and errors that they know.

See https://pytorch.org/serve/inference_api.html. What TorchServe 0.12 answers was seen by running
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from marshmallow import Schema, fields

from ..model.model import Model
from ..model.predictions import ClassPrediction, Prediction, ValuesPrediction
from ..model.steps.declaration import IMAGE, TEXT, Sample
from .native.forms import MalformedBody
from .native.media import WHOLE_SAMPLE, Content, decoded_text, only_part
from .native.media_types import JSON
from .native.predictions import response_bodies
from .native.sample_schemas import from_base64

IMAGE_CLASSES = 5
"""The most probable classes that its image classifier answers; its text classifier answers all."""
_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_ERRORS: Mapping[int, str] = {
    400: "BadRequestException",
    401: "InvalidKeyException",
    403: "InvalidKeyException",
    404: "ResourceNotFoundException",
    405: "MethodNotAllowedException",
    408: "BadRequestException",
    413: "RequestEntityTooLargeException",
    414: "BadRequestException",
    415: "BadRequestException",
    422: "BadRequestException",
    429: "ServiceUnavailableException",  # which its callers retry, too
    431: "BadRequestException",
    503: "ServiceUnavailableException",
}
_ERRORS_OF_KIND: Mapping[str, str] = {
    "unknown-model": "ModelNotFoundException",
    "version-not-loaded": "ModelVersionNotFoundException",
}


class TorchServeErrorSchema(Schema):
    """An error as TorchServe words it."""

    code = fields.Integer(required=True)
    type = fields.String(required=True)
    message = fields.String(required=True)


class PingSchema(Schema):
    status = fields.String(required=True, metadata={"enum": ["Healthy"]})


TORCHSERVE_ERROR = TorchServeErrorSchema()
PING = PingSchema()


def is_torchserve(path: str) -> bool:
    """Return True if ``path``, without the prefix, is one of TorchServe's inference API; slashes
    before it count as one, and those behind as none.
    """
    inner = path.strip("/")
    return inner == "ping" or inner.partition("/")[0] == "predictions"


def error_document(status: int, kind: str, detail: str) -> bytes:
    """Return an error in JSON; ``kind`` is that of the problem."""
    named = _ERRORS_OF_KIND.get(kind) or _ERRORS.get(status, "InternalServerException")
    return pretty({"code": status, "type": named, "message": detail})


def pretty(document: Any) -> bytes:
    """Return JSON as TorchServe writes it, over several lines."""
    return orjson.dumps(document, option=_PRETTY)


def sample_in(content: Content, members: Sequence[str]) -> Sample:
    """Return the sample in the body of a request to a model that takes ``members``.

    It is the body as it is, whatever it is declared as, a field ``data`` or ``body`` of a form, or
    that member of JSON, in which images are in base64. Raises `MalformedBody`.
    """
    if len(members) != 1:
        raise MalformedBody(
            "This model takes an image and a text together: send them to /predict instead."
        )
    value, charset = _whole(content)
    if members[0] == TEXT:
        text = value if isinstance(value, str) else decoded_text(value, charset, "The text")
        return Sample(text=text)
    if isinstance(value, bytes):
        return Sample(image=value)
    try:
        return Sample(image=from_base64(value))
    except ValueError as error:
        raise MalformedBody(f"The image in the JSON {error}.") from None


def _whole(content: Content) -> tuple[bytes | str, str]:
    """Return what is sent for the only member, a string where it is JSON, and its charset."""
    if content.fields is not None:
        part = only_part([p for name in WHOLE_SAMPLE for p in content.fields.get(name, ())])
        return part.body, part.charset
    if content.media_type != JSON:
        return content.body, content.charset
    try:
        document = orjson.loads(content.body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"The body is not JSON: {error}.") from None
    if isinstance(document, dict):
        document = next((document[name] for name in WHOLE_SAMPLE if name in document), None)
    if not isinstance(document, str):
        named = " or ".join(WHOLE_SAMPLE)
        raise MalformedBody(f"The JSON must be a string, or an object with one as {named}.")
    return document, ""


def answer_of(model: Model, prediction: Prediction, top: int) -> bytes:
    """Return a prediction as TorchServe's own handlers answer: numbers by the names of classes.

    Images get the ``top`` most probable ones, five if it is 0; other models all, in their order.
    """
    as_number = response_bodies(model).one.as_number
    values = [*map(as_number, prediction.values)]
    names = model.task.columns
    if names is None:
        return pretty(values)
    if isinstance(prediction, ValuesPrediction):
        return pretty(dict(zip(names, values, strict=True)))
    order = range(len(values))
    takes_image = model.steps is not None and IMAGE in model.steps.members
    if top or (takes_image and isinstance(prediction, ClassPrediction)):
        ranked = sorted(order, key=lambda index: -values[index])
        return pretty({names[index]: values[index] for index in ranked[: top or IMAGE_CLASSES]})
    return pretty({names[index]: values[index] for index in order})
