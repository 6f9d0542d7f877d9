"""The schemas of samples in JSON for models with steps, and of samples that a handler reads."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from functools import cache
from typing import Any

from marshmallow import ValidationError, fields, post_load
from msgspec import Raw

from ...model.errors import MAX_FAULTS, InvalidFeatures
from ...model.steps.declaration import Sample
from .. import raw_json
from .predictions import doc
from .request_schema import MISSING, RequestSchema
from .samples import split

IMAGE, TEXT, PAIR = "image", "text", "pair"
"""The members of a sample."""
SAMPLES = "samples"
"""The member of a body that has many samples."""
_DATA_URL, _BASE64 = "data:", ";base64,"


class TextField(fields.Field[str]):
    """A string."""

    default_error_messages = {**MISSING, "type": "must be a string"}  # noqa: RUF012

    def _deserialize(self, value: Raw, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not raw_json.is_text(value):
            raise self.make_error("type")
        return raw_json.text(value)


class ImageField(fields.Field[bytes]):
    """An encoded image as a string in base64, or a data URL of it."""

    default_error_messages = {  # noqa: RUF012
        **MISSING,
        "type": "must be a string: the image in base64",
    }

    def _deserialize(self, value: Raw, attr: str | None, data: Any, **kwargs: Any) -> bytes:
        if not raw_json.is_text(value):
            raise self.make_error("type")
        try:
            return from_base64(raw_json.text(value))
        except ValueError as error:
            raise ValidationError(str(error)) from None


class _SampleSchema(RequestSchema):
    """A sample of a model with steps."""

    @post_load
    def _make(self, members: dict[str, Any], **kwargs: Any) -> Sample:
        return Sample(**members)


def sample_schema(members: Sequence[str]) -> RequestSchema:
    """Return the schema of a sample that has ``members``: it loads a `Sample`."""
    described: dict[str, fields.Field[Any]] = {}
    if IMAGE in members:
        described[IMAGE] = ImageField(required=True, **doc("The image, in base64.", format="byte"))
    if TEXT in members:
        described[TEXT] = TextField(required=True, **doc("The text."))
        described[PAIR] = TextField(**doc("A second text, for models of pairs."))
    schema = _SampleSchema.of("SampleSchema", described)
    schema.error_messages["unknown"] = f"is unknown; this model takes {' and '.join(described)}"
    return schema


class ElementsField(fields.Field[list[Any]]):
    """An array of at most ``max_samples``, which are loaded as they are: encoded.

    Loading raises `BatchTooLarge`.
    """

    default_error_messages = {**MISSING, "type": "must be an array of samples"}  # noqa: RUF012

    def __init__(self, max_samples: int) -> None:
        super().__init__(required=True)
        self.max_samples = max_samples

    def _deserialize(self, value: Raw, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if not raw_json.is_array(value):
            raise self.make_error("type")
        try:
            return split(value, self.max_samples)
        except InvalidFeatures as error:
            raise ValidationError(list(error.faults)) from None


class SamplesField(ElementsField):
    """An array of samples of ``schema``."""

    def __init__(self, schema: RequestSchema, max_samples: int) -> None:
        super().__init__(max_samples)
        self.schema = schema

    def _deserialize(self, value: Raw, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        found: list[Any] = []
        faults: dict[int, Any] = {}
        for index, sample in enumerate(super()._deserialize(value, attr, data)):
            try:
                found.append(self.schema.load(sample))
            except ValidationError as error:
                faults[index] = error.messages
                error.__traceback__ = None
                if len(faults) >= MAX_FAULTS:
                    break
        if faults:
            raise ValidationError(faults)
        return found


def samples_schema(members: Sequence[str], max_samples: int) -> RequestSchema:
    """Return the schema of a body with many samples that have ``members``."""
    return _of_many(SamplesField(sample_schema(members), max_samples))


@cache
def elements_schema(max_samples: int) -> RequestSchema:
    """Return the schema of a body with many samples, which are left to a handler to decode."""
    return _of_many(ElementsField(max_samples))


def _of_many(samples: ElementsField) -> RequestSchema:
    return RequestSchema.of("SamplesSchema", {SAMPLES: samples})


def from_base64(text: str) -> bytes:
    """Return what ``text`` encodes, which may be a data URL.

    Raises `ValueError` with the end of a sentence.
    """
    if text.startswith(_DATA_URL):
        _, found, text = text.partition(_BASE64)
        if not found:
            raise ValueError("is a data URL without ;base64, in it")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # binascii.Error, or a character that isn't ASCII
        reason = str(error)
    raise ValueError(f"is not base64: {reason[:1].lower()}{reason[1:]}")
