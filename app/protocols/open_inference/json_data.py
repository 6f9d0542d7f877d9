"""The data of a tensor in JSON: numbers, booleans or strings, flat or nested.

Values are counted before memory is taken for them, and only a few thousand are Python objects at a
time, however many there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Raw

from .datatypes import Array, Datatype
from .errors import InvalidRequest, Path

_CHUNK = 8192
"""How many values are Python objects at a time."""
_COMMA = ord(",")
_BUT_STRUCTURE = bytes(set(range(256)) - set(b"[],"))
_STRUCTURE_AND_SPACE = b"[], \t\r\n"
_INDEX = re.compile(r"\$\[(\d+)\]")


def decode_json(
    data: Raw, shape: Sequence[int], size: int, datatype: Datatype, path: Path
) -> Array:
    """Return the array of ``shape``, of ``size`` values, that ``data`` holds.

    Raises `InvalidRequest` with ``path``, and the index of the value where one is at fault.
    """
    text = bytes(data)
    if not text.startswith(b"["):
        raise InvalidRequest.at(path, "must be an array, flat or nested as the shape says")
    if datatype.name == "BF16":
        raise InvalidRequest.at(path, "can't hold BF16, which is sent as a binary tensor")
    if datatype.name == "BYTES":
        return _strings(text, shape, size, path)
    is_nested = text.find(b"[", 1) >= 0
    is_empty = not text.translate(None, _STRUCTURE_AND_SPACE)
    if is_nested:
        _check_nesting(text, shape, path)
        text = b"[%b]" % text.translate(None, b"[]")
    count = 0 if is_empty else text.count(b",") + 1
    if count != size:
        raise _wrong_count(count, shape, size, path)
    flat = np.empty(size, dtype=datatype.dtype)
    for start, chunk in _chunks(text, size):
        _fill(flat, start, chunk, datatype, path)
    return flat.reshape(shape)


def _wrong_count(count: int, shape: Sequence[int], size: int, path: Path) -> InvalidRequest:
    return InvalidRequest.at(
        path, f"has {count:,} values, and the shape {list(shape)} takes {size:,}"
    )


def _wrong_nesting(shape: Sequence[int], path: Path) -> InvalidRequest:
    return InvalidRequest.at(path, f"is nested otherwise than the shape {list(shape)}")


def _check_nesting(text: bytes, shape: Sequence[int], path: Path) -> None:
    """Raise `InvalidRequest` unless the brackets and commas of ``text`` are those of ``shape``."""
    structure = text.translate(None, _BUT_STRUCTURE)
    expected = b""
    for dimension in reversed(shape):
        # To write a large dimension costs a caller nothing.
        if 2 + dimension * len(expected) + max(dimension - 1, 0) > len(structure):
            raise _wrong_nesting(shape, path)
        expected = b"[%b]" % b",".join([expected] * dimension)
    if structure != expected:
        raise _wrong_nesting(shape, path)


def _chunks(text: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield arrays of the values of a flat one, each with the index of its first value."""
    if size <= _CHUNK:
        if size:
            yield 0, text
        return
    commas = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == _COMMA)
    ends = [*commas[_CHUNK - 1 :: _CHUNK].tolist(), len(text) - 1]
    begin = 1
    for start, end in zip(range(0, size, _CHUNK), ends, strict=False):
        yield start, b"[%b]" % text[begin:end]
        begin = end + 1


def _fill(flat: Array, start: int, chunk: bytes, datatype: Datatype, path: Path) -> None:
    """Read an array into ``flat`` from ``start`` on."""
    decode, wanted = _decoder(datatype.name)
    try:
        values = decode(chunk)
    except msgspec.ValidationError as error:
        raise InvalidRequest.at((*path, start + _index(error)), f"must be {wanted}") from None
    except msgspec.DecodeError:  # an array in it was empty, so that a value is missing
        raise _wrong_nesting(flat.shape, path) from None
    into = flat[start : start + len(values)]
    if datatype.dtype.kind != "f":
        try:
            into[:] = values
        except OverflowError:
            index = next(i for i, value in enumerate(values) if value >= 2**64)
            raise InvalidRequest.at((*path, start + index), f"must be {wanted}") from None
        return
    with np.errstate(over="ignore"):
        into[:] = np.array(values, dtype=np.float64)
    infinite = np.isinf(into)
    if infinite.any():
        raise InvalidRequest.at((*path, start + int(infinite.argmax())), f"must be {wanted}")


@cache
def _decoder(name: str) -> tuple[Callable[[bytes], list[Any]], str]:
    """Return what reads an array of values of a datatype, and what such a value is in words."""
    kind: Any
    if name == "BOOL":
        kind, wanted = bool, "true or false"
    elif name.startswith("FP"):
        kind, wanted = float | None, f"a number that is finite as {name}, or null for NaN"
    else:
        bounds = np.iinfo(name.lower())
        low, high = int(bounds.min), int(bounds.max)
        # msgspec takes no bound beyond int64; numpy holds the values to that of UINT64.
        kind = Annotated[int, Meta(ge=low, le=high) if high < 2**63 else Meta(ge=low)]
        wanted = f"an integer from {low} to {high}"
    return msgspec.json.Decoder(list[kind]).decode, wanted


def _index(error: Exception) -> int:
    found = _INDEX.search(str(error))
    return int(found[1]) if found else 0


def _strings(text: bytes, shape: Sequence[int], size: int, path: Path) -> Array:
    kind: Any = str
    for _ in shape:
        kind = list[kind]
    try:
        values = msgspec.json.decode(text, type=list[str])
    except msgspec.DecodeError as error:
        try:
            values = _flattened(msgspec.json.decode(text, type=kind), shape, path)
        except msgspec.DecodeError:
            raise InvalidRequest.at((*path, _index(error)), "must be a string") from None
    if len(values) != size:
        raise _wrong_count(len(values), shape, size, path)
    flat = np.empty(size, dtype=object)
    flat[:] = [value.encode() for value in values]
    return flat.reshape(shape)


def _flattened(values: list[Any], shape: Sequence[int], path: Path) -> list[str]:
    level: list[Any] = [values]
    for dimension in shape:
        if any(len(each) != dimension for each in level):
            raise _wrong_nesting(shape, path)
        level = [item for each in level for item in each]
    return level
