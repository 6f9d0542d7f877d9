"""Bodies with images and texts, for models whose steps make tensors of them.

A caller sends one as it is, in a form, or in JSON. Nothing is decoded here but the form itself:
images stay encoded, and texts are strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, NoReturn, Self, TypeVar

from marshmallow import ValidationError

from ...model.errors import MAX_FAULTS, BatchTooLarge, Fault
from ...model.steps.declaration import IMAGE, PAIR, TEXT, Sample
from .forms import FORM, MalformedBody, Part
from .media_types import JSON, MediaTypes
from .sample_schemas import SAMPLES, sample_schema, samples_schema, taken_members

_OCTETS = "application/octet-stream"
_PLAIN = "text/plain"
T = TypeVar("T")
WHOLE_SAMPLE = ("data", "body")
"""Fields of a form, as TorchServe has them, that are the sample of a model that takes one thing."""
_CHARSETS = {
    **dict.fromkeys(("", "utf-8", "utf8"), "utf-8-sig"),  # without the mark that Windows writes
    **dict.fromkeys(("us-ascii", "ascii"), "ascii"),
    **dict.fromkeys(("iso-8859-1", "latin1", "latin-1"), "latin-1"),
    "windows-1252": "cp1252",
}


@dataclass(frozen=True, slots=True)
class Content:
    """A request body of a ``media_type``, with its ``charset`` where the caller said it.

    A form is given as its ``fields``: the parts of each name.
    """

    media_type: str
    body: bytes
    charset: str = ""
    fields: Mapping[str, Sequence[Part]] | None = None


class MediaBody:
    """A kind of request body for models that take ``members``: ``image``, ``text`` or both.

    With ``max_samples`` it has any number of samples up to that, else exactly one, at ``place``.
    """

    place: ClassVar[tuple[str, ...]] = ()

    def __init__(self, members: Sequence[str], max_samples: int | None = None) -> None:
        self._members = tuple(members)
        self._taken = taken_members(members)
        self._only = members[0] if len(members) == 1 else ""
        self._max_samples = max_samples
        self._schema = (
            sample_schema(members) if max_samples is None else samples_schema(members, max_samples)
        )
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
            return [Sample(text=decoded_text(content.body, content.charset, "The text"))]
        return self._in_json(content.body)

    def _in_json(self, body: bytes) -> list[Sample]:
        loaded = self._schema.load_json(body)
        return [loaded] if self._max_samples is None else loaded[SAMPLES]

    def _in_form(self, fields: Mapping[str, Sequence[Part]]) -> list[Sample]:
        whole = [self._taken[0], *WHOLE_SAMPLE] if self._only else []
        known = {*whole, *self._taken}
        unknown = [
            Fault((name,), f"is not a field of this form; it has {_either(self._form_fields)}")
            for name in islice((name for name in fields if name not in known), MAX_FAULTS)
        ]
        if unknown:
            raise ValidationError(unknown)
        used = [name for name in whole if name in fields]
        if len(used) > 1:
            _fail((used[1],), f"is beside {used[0]}; call all fields alike, to keep their order")
        columns = {name: fields.get(name, ()) for name in self._members}
        if used:
            columns = {self._only: fields[used[0]]}
        first = used[0] if used else self._form_fields[0]
        count = len(columns[self._members[0]])
        self._check_count(count, first)
        if fields.get(PAIR):
            columns[PAIR] = fields[PAIR]
        for name, values in columns.items():
            if len(values) != count:
                _fail((name,), f"occurs {len(values):,} times, and {first} {count:,} times")
        return [_from_form(columns, row) for row in range(count)]

    @property
    def _form_fields(self) -> tuple[str, ...]:
        return (*WHOLE_SAMPLE, *self._taken) if self._only else self._taken

    def _check_count(self, count: int, name: str) -> None:
        """Raise an exception if a form has no sample, or too many."""
        if not count:
            _fail((name,), "is missing; a field of the form must have the sample")
        if self._max_samples is None and count > 1:
            detail = f"occurs {count:,} times; send several samples to the same path with /batch"
            _fail((name,), detail)
        if self._max_samples is not None and count > self._max_samples:
            raise BatchTooLarge(count, self._max_samples)


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


def only_part(parts: Sequence[T]) -> T:
    """Return the one of ``parts``, which have the sample of a form. Raises `MalformedBody`."""
    if len(parts) != 1:
        named = " or ".join(WHOLE_SAMPLE)
        raise MalformedBody(f"The form must have one field {named}, and has {len(parts)}.")
    return parts[0]


def _fail(path: tuple[str | int, ...], detail: str) -> NoReturn:
    raise ValidationError([Fault(path, detail)])


def _either(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _from_form(columns: Mapping[str, Sequence[Part]], row: int) -> Sample:
    """Return the sample of the same place in each of ``columns``."""
    read: dict[str, bytes | str] = {}
    for name, parts in columns.items():
        part = parts[row]
        if name == IMAGE:
            read[name] = part.body
        else:
            place = name if len(parts) == 1 else f"{name} {row}"
            read[name] = decoded_text(part.body, part.charset, f"The field {place}")
    return Sample(**read)  # type: ignore[arg-type]


def decoded_text(body: bytes, charset: str, what: str) -> str:
    """Return the text in ``body``. Raises `MalformedBody`."""
    encoding = _CHARSETS.get(charset.lower())
    if encoding is None:
        raise MalformedBody(
            f"{what} has the charset {charset[:40]!r}, which is not supported; send UTF-8."
        )
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as error:
        raise MalformedBody(
            f"{what} is not in {charset or 'UTF-8'}: byte {error.start} is wrong."
        ) from None
