"""Documents read as the structs that declare them, with errors that name the place and the fix.

For JSON and TOML that people write, including settings; msgspec's own messages are for programmers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta, Struct, UnsetType, ValidationError
from msgspec.structs import fields

from .suggestions import did_you_mean

_Kind = TypeVar("_Kind")
Path = tuple[str | int, ...]
"""The members and indices from the root of a document to a place in it."""

_ABSENT = object()
"""In place of a member that is missing: it fits no type."""
_WORDS = {str: "a string", bool: "true or false", int: "an integer", float: "a finite number"}
_SENT = {
    "array": "an array",
    "bool": "true or false",
    "float": "a number",
    "int": "an integer",
    "null": "null",
    "object": "an object",
    "str": "a string",
}
"""By msgspec's names of what JSON holds."""
_REFUSAL = re.compile(r"(?P<text>.*?)(?: - at `\$(?P<place>.*)`)?", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_OTHER_KIND = re.compile(r"Expected `.*`, got `(\w+)`")
_LONGEST_STEP = 80
_LARGEST_INTEGER = 2**63 - 1


class SchemaError(ValueError):
    """The first place of a document that doesn't fit; its message says what must be there.

    ``requirement`` is the message without the place. ``missing`` is True for a missing member.
    ``sent`` says in words what kind of value is there, if that is what is wrong and it is known.
    ``known`` are the valid members of an object that has an unknown one, and empty otherwise.
    """

    def __init__(
        self,
        path: Path,
        wanted: str,
        *,
        hint: str = "",
        missing: bool = False,
        sent: str = "",
        known: tuple[str, ...] = (),
    ) -> None:
        self.requirement = f"must be {wanted}{hint or '.'}"
        super().__init__(f"{place(path)} {self.requirement}")
        self.path = path
        self.wanted = wanted
        self.missing = missing
        self.sent = sent
        self.known = known


def place(path: Path) -> str:
    """Return ``path`` in the usual notation: ``features[0].name``."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step[:_LONGEST_STEP]}" for step in path)
    return "".join(steps).removeprefix(".") or "the document"


def read_as(kind: type[_Kind], value: object, path: Path = ()) -> _Kind:
    """Return ``value``, at ``path`` of its document, converted to ``kind``.

    The description in a type's `Meta`, if any, says in errors what is expected. Raises
    `SchemaError`.
    """
    try:
        return msgspec.convert(value, kind)
    except ValidationError:
        raise _fault(kind, value, path) from None


def explain(kind: Any, refusal: ValidationError) -> SchemaError:
    """Return the error for JSON that msgspec doesn't decode as ``kind``, by its ``refusal``.

    What `read_as` says of a value is said here by the type alone, so that of a large document
    nothing has to be decoded once more. ``kind`` is made of structs and arrays: of a mapping,
    msgspec doesn't say which member it was.
    """
    found = _REFUSAL.fullmatch(str(refusal))
    assert found is not None
    path: Path = tuple(name or int(index) for name, index in _STEP.findall(found["place"] or ""))
    missing, other = _MISSING.match(found["text"]), _OTHER_KIND.match(found["text"])
    if missing is not None:
        path = (*path, missing[1])
    sent = _SENT.get(other[1], other[1]) if other is not None else ""
    wanted = _wanted(_kind_at(kind, path), None)
    return SchemaError(path, wanted, missing=missing is not None, sent=sent)


def _kind_at(kind: Any, path: Path) -> Any:
    """Return the type of what is at ``path`` of a document of ``kind``."""
    for step in path:
        bare, _, _ = _bare(kind)
        if _is_struct(bare):
            kind = next(field.type for field in fields(bare) if field.encode_name == step)
        else:
            kind = get_args(bare)[0]
    return kind


def _fault(kind: Any, value: object, path: Path) -> SchemaError:
    tagged = _by_tag(kind)
    if tagged and isinstance(value, dict):
        (field,) = {each.__struct_config__.tag_field for each in tagged.values()}
        chosen = tagged.get(value.get(field))
        if chosen is None:
            wanted = f"one of {', '.join(map(repr, tagged))}"
            return SchemaError((*path, str(field)), wanted, missing=field not in value)
        kind, value = chosen, {name: item for name, item in value.items() if name != field}
    bare, _, _ = _bare(kind)
    if (
        isinstance(value, dict)
        and _is_struct(bare)
        and bare.__struct_config__.forbid_unknown_fields
    ):
        known = bare.__struct_encode_fields__
        unknown = next((key for key in value if key not in known), None)
        if unknown is not None:
            hint = did_you_mean(str(unknown), known)
            return SchemaError((*path, str(unknown)), "left out", hint=hint, known=known)
    for step, part, part_kind in _parts(bare, value):
        try:
            msgspec.convert(part, part_kind)
        except ValidationError:
            return _fault(part_kind, part, (*path, step))
    wanted = _wanted(kind, value)
    choices = get_args(bare) if get_origin(bare) is Literal and isinstance(value, str) else ()
    hint = did_you_mean(str(value), choices)
    return SchemaError(path, wanted, hint=hint, missing=value is _ABSENT)


def _wanted(kind: Any, value: object) -> str:
    """Return what must be in the place of ``value``, in words."""
    bare, notes, nullable = _bare(kind)
    described = next((note.description for note in notes if note.description), None)
    words = [_words(bare, notes, value)]
    if get_origin(kind) in (Union, UnionType):
        others = [each for each in get_args(kind)[1:] if each not in (NoneType, UnsetType)]
        words += [_wanted(each, value) for each in others]
    return described or " or ".join([*words, "null"] if nullable else words)


def _by_tag(kind: Any) -> dict[object, type[Struct]]:
    """Return the structs of a union that a tag tells apart, by their tags; none of other types."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else ()
    if not kinds or not all(_is_struct(each) and each.__struct_config__.tag for each in kinds):
        return {}
    return {each.__struct_config__.tag: each for each in kinds}


def _bare(kind: Any) -> tuple[Any, list[Meta], bool]:
    """Return a type without its annotations, the annotations, and True if None is allowed."""
    notes: list[Meta] = []
    nullable = False
    while (origin := get_origin(kind)) in (Annotated, Union, UnionType):
        kind, *others = get_args(kind)
        notes += [other for other in others if isinstance(other, Meta)]
        nullable |= NoneType in others and origin is not Annotated
    return kind, notes, nullable


def _parts(kind: Any, value: object) -> Iterator[tuple[str | int, object, Any]]:
    """Yield the parts of ``value``, each with its step in the path and its type."""
    parts = get_args(kind)
    if _is_struct(kind) and isinstance(value, dict):
        for field in fields(kind):
            required = field.default is NODEFAULT and field.default_factory is NODEFAULT
            if required or field.encode_name in value:
                yield field.encode_name, value.get(field.encode_name, _ABSENT), field.type
    elif get_origin(kind) in (dict, Mapping) and isinstance(value, dict):
        for key, item in value.items():
            yield key, key, parts[0]
            yield key, item, parts[1]
    elif get_origin(kind) in (list, tuple) and isinstance(value, list):
        for index, item in enumerate(value):
            yield index, item, parts[0]


def _words(kind: Any, notes: list[Meta], value: object) -> str:
    least = max((note.min_length or 0 for note in notes), default=0)
    most = next((note.max_length for note in notes if note.max_length is not None), None)
    origin = get_origin(kind)
    if origin in (list, tuple):
        if most is not None:
            return f"an array of {least} to {most}" if least else f"an array of at most {most}"
        return f"an array of at least {least}" if least else "an array"
    if origin is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    words = _WORDS.get(kind, "an object")
    if kind in (int, float):
        return words + _bounds(notes, value)
    return f"{words} that is not empty" if kind is str and least else words


def _bounds(notes: list[Meta], value: object) -> str:
    """Return the bounds of a number as text that follows its kind, without those of its type."""
    least = next((note.ge for note in notes if _is_told(note.ge, value)), None)
    above = next((note.gt for note in notes if _is_told(note.gt, value)), None)
    most = next((note.le for note in notes if _is_told(note.le, value)), None)
    if above is not None:
        return f" greater than {above}" + ("" if most is None else f" and at most {most}")
    if least is not None:
        return f" of at least {least}" if most is None else f" from {least} to {most}"
    return "" if most is None else f" of at most {most}"


def _is_told(bound: float | None, value: object) -> bool:
    if bound is None or abs(bound) == sys.float_info.max:
        return False
    return bound != _LARGEST_INTEGER or (isinstance(value, int) and value > bound)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)
