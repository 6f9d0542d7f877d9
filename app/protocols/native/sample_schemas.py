"""The schemas of samples in JSON for models with steps, and of samples that a handler reads."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

from marshmallow import ValidationError, fields, post_load
from msgspec import Raw

from ...model.errors import MAX_FAULTS
from ...model.steps.declaration import IMAGE, PAIR, TEXT, Sample
from .. import raw_json
from .predictions import doc
from .request_schema import MISSING, RequestSchema, SamplesField
from .samples import split

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


def taken_members(members: Sequence[str]) -> tuple[str, ...]:
    """Return what a sample may have that must have ``members``: a text may have a pair."""
    return (*members, PAIR) if TEXT in members else tuple(members)


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


def samples_schema(members: Sequence[str], max_samples: int) -> RequestSchema:
    """Return the schema of a body with at most ``max_samples`` that have ``members``: it loads a
    `Sample` of each.

    Loading raises `BatchTooLarge`, too.
    """
    schema = sample_schema(members)

    def read(value: Raw) -> list[Sample]:
        return _load_each(schema, split(value, max_samples))

    return RequestSchema.of("SamplesSchema", {SAMPLES: SamplesField(read)})


@cache
def elements_schema(max_samples: int) -> RequestSchema:
    """Return the schema of a body with at most ``max_samples``, which stay encoded: what is in
    them, a handler knows.

    Loading raises `BatchTooLarge`, too.
    """
    read = partial(split, max_rows=max_samples)
    return RequestSchema.of("ElementsSchema", {SAMPLES: SamplesField(read)})


def _load_each(schema: RequestSchema, elements: Sequence[Raw]) -> list[Sample]:
    """Return the samples in ``elements``. Raises `ValidationError` with the first faults."""
    samples: list[Sample] = []
    faults: dict[int, Any] = {}
    for index, element in enumerate(elements):
        try:
            samples.append(schema.load_raw(element))
        except ValidationError as error:
            faults[index] = error.messages
            if len(faults) >= MAX_FAULTS:
                break
    if faults:
        raise ValidationError(faults)
    return samples


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
