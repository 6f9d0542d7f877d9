"""Bodies with images and texts, for models whose steps make tensors of them.

A caller sends one as it is, in a form, or in JSON. Nothing is decoded here but the form itself:
images stay encoded, and texts are strings.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, NoReturn, Self

from marshmallow import RAISE, Schema, ValidationError, fields
from msgspec import Raw

from ...model.errors import MAX_FAULTS, BatchTooLarge, Fault, InvalidFeatures
from ...model.steps.declaration import Sample
from .. import raw_json
from .media_types import JSON, MediaTypes
from .samples import split

IMAGE, TEXT, PAIR = "image", "text", "pair"
"""The members of a sample."""
FORM = "multipart/form-data"
_OCTETS = "application/octet-stream"
_PLAIN = "text/plain"
WHOLE_SAMPLE = ("data", "body")
"""Fields of a form, as TorchServe has them, that are the sample of a model that takes one thing."""
MANY = "samples"
"""The member of a JSON body that has many samples."""
_CHARSETS = {"utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "ascii", "iso-8859-1": "latin-1"}
_DATA_URL, _BASE64 = "data:", ";base64,"


@dataclass(frozen=True, slots=True)
class Content:
    """A request body of a ``media_type``, with its ``charset`` where the caller said it.

    A form is given as its ``fields``: the contents of those of each name.
    """

    media_type: str
    body: bytes
    charset: str = "utf-8"
    fields: Mapping[str, Sequence[bytes]] | None = None


class MalformedBody(ValueError):
    """A body that isn't of its Content-Type; the message says why, in a sentence."""


class MediaBody:
    """A kind of request body for models that take ``members``: ``image``, ``text`` or both.

    With ``max_samples`` it has any number of samples up to that, else exactly one.
    """

    def __init__(self, members: Sequence[str], max_samples: int | None = None) -> None:
        self._members = tuple(members)
        self._only = members[0] if len(members) == 1 else ""
        self._max_samples = max_samples
        self._schema = sample_schema(members)()
        self.media_types = MediaTypes(tuple(self._accepted()))

    def _accepted(self) -> Iterable[str]:
        if self._max_samples is None and self._only == IMAGE:
            yield from ("image/*", _OCTETS)
        if self._max_samples is None and self._only == TEXT:
            yield _PLAIN
        yield from (FORM, JSON)

    def samples(self, content: Content) -> list[Sample]:
        """Return the samples in a body: one, unless it may have many.

        Raises `NotJson`, `MalformedBody`, `ValidationError` and `BatchTooLarge`.
        """
        if content.fields is not None:
            return self._in_form(content.fields)
        if content.media_type.startswith("image/") or content.media_type == _OCTETS:
            return [Sample(image=content.body)]
        if content.media_type == _PLAIN:
            return [Sample(text=as_text(content.body, content.charset))]
        return self._in_json(content.body)

    def _in_json(self, body: bytes) -> list[Sample]:
        document = raw_json.check(body)
        if self._max_samples is None:
            return [self._load(document, ())]
        samples = samples_in(document, self._max_samples)
        return [self._load(each, (MANY, index)) for index, each in enumerate(samples)]

    def _load(self, value: Raw, path: tuple[str | int, ...]) -> Sample:
        members = _members_of(value, tuple(self._schema.fields), path)
        try:
            loaded: dict[str, Any] = self._schema.load(members)
        except ValidationError as error:
            error.__traceback__ = None  # its frames refer to the error, which has the document
            messages: Any = error.messages
            for part in reversed(path):
                messages = {part: messages}
            raise ValidationError(messages) from None
        return Sample(**loaded)

    def _in_form(self, fields: Mapping[str, Sequence[bytes]]) -> list[Sample]:
        wanted = (*WHOLE_SAMPLE, *self._members) if self._only else self._members
        known = {*wanted, PAIR} if TEXT in self._members else {*wanted}
        unknown = [name for name in fields if name not in known]
        if unknown:
            raise ValidationError(
                [
                    Fault((name,), f"is not a field of this form; it has {', '.join(wanted)}")
                    for name in unknown[:MAX_FAULTS]
                ]
            )
        if self._only:
            whole = [value for name in wanted for value in fields.get(name, ())]
            found = self._of_one_kind(whole, fields.get(PAIR, ()))
        else:
            found = [self._of_all_kinds(fields)]
        if self._max_samples is not None and len(found) > self._max_samples:
            raise BatchTooLarge(len(found), self._max_samples)
        if self._max_samples is None and len(found) != 1:
            detail = f"must be one field of the form, not {len(found)}"
            more = "; send several to /predict/batch" if found else f" ({' or '.join(wanted)})"
            _fail((wanted[0],), detail + more)
        return found

    def _of_one_kind(self, values: Sequence[bytes], pairs: Sequence[bytes]) -> list[Sample]:
        if self._only == IMAGE:
            return [Sample(image=value) for value in values]
        if pairs and len(pairs) != len(values):
            _fail((PAIR,), f"occurs {len(pairs)} times, and there are {len(values)} texts")
        seconds: Sequence[str | None] = [*map(as_text, pairs)] or [None] * len(values)
        texts = map(as_text, values)
        return [Sample(text=a, pair=b) for a, b in zip(texts, seconds, strict=True)]

    def _of_all_kinds(self, fields: Mapping[str, Sequence[bytes]]) -> Sample:
        for name in self._members:
            if len(fields.get(name, ())) != 1:
                _fail((name,), f"must be one field of the form, not {len(fields.get(name, ()))}")
        (image,), (text,) = fields[IMAGE], fields[TEXT]
        pairs = [as_text(each) for each in fields.get(PAIR, ())]
        return Sample(image=image, text=as_text(text), pair=pairs[0] if pairs else None)


@dataclass(frozen=True, slots=True)
class MediaBodies:
    """The request bodies for a model with steps."""

    members: tuple[str, ...]
    predict: MediaBody
    batch: MediaBody

    @classmethod
    def of(cls, members: Sequence[str], max_samples: int) -> Self:
        """Return those of a model that takes ``members``."""
        return cls(tuple(members), MediaBody(members), MediaBody(members, max_samples))


class ImageField(fields.Field[bytes]):
    """An image, in base64 when it is JSON; as a data URL, too."""

    default_error_messages = {  # noqa: RUF012
        "required": "is missing",
        "null": "must not be null",
        "type": "must be a string: the image in base64",
        "base64": "is not base64",
    }

    def _deserialize(self, value: Raw, attr: str | None, data: Any, **kwargs: Any) -> bytes:
        if not raw_json.is_text(value):
            raise self.make_error("type")
        try:
            return from_base64(raw_json.text_or_outline(value))
        except ValueError:  # binascii.Error, or a character that isn't ASCII
            raise self.make_error("base64") from None


class TextField(fields.Field[str]):
    """A text."""

    default_error_messages = {  # noqa: RUF012
        "required": "is missing",
        "null": "must not be null",
        "type": "must be a string",
    }

    def _deserialize(self, value: Raw, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not raw_json.is_text(value):
            raise self.make_error("type")
        return str(raw_json.text_or_outline(value))


_FIELDS: dict[str, Callable[[], fields.Field[Any]]] = {
    IMAGE: lambda: ImageField(
        required=True, metadata={"description": "The image, in base64.", "format": "byte"}
    ),
    TEXT: lambda: TextField(required=True, metadata={"description": "The text."}),
    PAIR: lambda: TextField(metadata={"description": "A second text, for models of pairs."}),
}


class _SampleSchema(Schema):
    """The base of the schemas of a sample."""

    error_messages = {"unknown": "is unknown"}  # noqa: RUF012

    class Meta:
        unknown = RAISE


def sample_schema(members: Sequence[str]) -> type[Schema]:
    """Return the schema of one sample with ``members``."""
    names = [*members, PAIR] if TEXT in members else [*members]
    return _SampleSchema.from_dict({name: _FIELDS[name]() for name in names}, name="Sample")


def samples_in(document: Raw, max_samples: int) -> list[Raw]:
    """Return the elements of ``samples``, the only member of a JSON body.

    Raises `ValidationError`, and `BatchTooLarge` for more than ``max_samples``.
    """
    members = _members_of(document, (MANY,), ())
    unknown = [name for name in members if name != MANY]
    if unknown:
        raise ValidationError([Fault((name,), "is unknown") for name in unknown])
    samples = members.get(MANY)
    if samples is None:
        _fail((MANY,), "is missing")
    if not raw_json.is_array(samples):
        _fail((MANY,), "must be an array of samples")
    try:
        return split(samples, max_samples)
    except InvalidFeatures as error:
        faults = [replace(fault, path=(MANY, *fault.path)) for fault in error.faults]
        raise ValidationError(faults) from None


def _members_of(
    value: Raw, known: tuple[str, ...], path: tuple[str | int, ...]
) -> dict[str, Raw | None]:
    """Return the known members of an object, and the first unknown ones; None for null."""
    if not raw_json.is_object(value):
        _fail(path, "must be an object")
    beside = raw_json.commas(value) - sum(raw_json.commas_of_member(value, name) for name in known)
    if beside > raw_json.MAX_COMMAS:
        _fail(path, f"has {beside:,} commas outside {', '.join(known)}, its only members")
    members = raw_json.members(value)
    unknown = islice((name for name in members if name not in known), MAX_FAULTS)
    return {
        name: None if raw_json.is_null(members[name]) else members[name]
        for name in chain(unknown, members.keys() & {*known})
    }


def _fail(path: tuple[str | int, ...], detail: str) -> NoReturn:
    raise ValidationError([Fault(path, detail)])


def from_base64(text: str) -> bytes:
    """Return what ``text`` encodes, which may be a data URL. Raises `ValueError`."""
    if text.startswith(_DATA_URL):
        text = text.partition(_BASE64)[2]
    return binascii.a2b_base64(text, strict_mode=True)


def as_text(body: bytes, charset: str = "utf-8") -> str:
    """Return a text in ``body``. Raises `MalformedBody`."""
    encoding = _CHARSETS.get(charset.lower())
    if encoding is None:
        raise MalformedBody(f"The charset {charset[:40]!r} is not supported; send UTF-8.")
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as error:
        raise MalformedBody(f"The text is not {charset}: byte {error.start} is wrong.") from None
