"""The data of a tensor in JSON: numbers, booleans or strings, flat or nested.

Values are counted before memory is taken for them. Numbers are read a part of the text at a time,
without a Python object for each; a part in which not all are as they must be is read once more, by
msgspec, which says where.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Annotated, Any

import msgspec
import numpy as np
import simdjson
from msgspec import Meta, Raw

from .datatypes import ONLY_BINARY, Array, Datatype
from .errors import InvalidRequest, Path

_PART = 65_536
"""The bytes of text that are read at a time: simdjson takes ten times as much memory for them."""
_FEW = 1024
"""Up to so many bytes of text, a Python object for each number costs less than simdjson does."""
_COMMA = ord(",")
_BUT_STRUCTURE = bytes(set(range(256)) - set(b"[],"))
_EMPTY = re.compile(rb"[\[\], \t\r\n]*")
_WIDEST = {
    "f": ("d", np.dtype(np.float64)),
    "i": ("i", np.dtype(np.int64)),
    "u": ("u", np.dtype(np.uint64)),
}
"""The types as which simdjson reads values, by kinds of datatypes: its own name, and numpy's."""
_INDEX = re.compile(r"\$\[(\d+)\]")


def decode_json(
    data: Raw, shape: Sequence[int], size: int, datatype: Datatype, path: Path
) -> Array:
    """Return the array of ``shape``, of ``size`` values, that ``data`` holds; for null NaN, and
    None among strings.

    Raises `InvalidRequest` with ``path``, and the index of the value where one is at fault.
    """
    text = bytes(data)
    if not text.startswith(b"["):
        raise InvalidRequest.at(path, "must be an array, flat or nested as the shape says")
    if datatype.name in ONLY_BINARY:
        raise InvalidRequest.at(
            path, f"can't hold {datatype.name}, which is sent as a binary tensor"
        )
    if datatype.name == "BYTES":
        return _strings(text, shape, size, path)
    is_nested = text.find(b"[", 1) >= 0
    parser = simdjson.Parser()
    if not is_nested and len(text) <= _PART:  # as most are; nothing has to be counted first
        values = (
            _few_numbers(text, datatype) if len(text) <= _FEW else _numbers(text, datatype, parser)
        )
        if values is not None and len(values) == size:
            return values.astype(datatype.dtype, copy=False).reshape(shape)
    is_empty = _EMPTY.fullmatch(text) is not None
    if is_nested:
        _check_nesting(text, shape, path)
        text = b"[%b]" % text.translate(None, b"[]")
    commas = int(np.count_nonzero(np.frombuffer(text, dtype=np.uint8) == _COMMA))
    count = 0 if is_empty else commas + 1
    if count != size:
        raise _wrong_count(count, shape, size, path)
    flat = np.empty(size, dtype=datatype.dtype)
    if size:
        start = 0
        for part in _parts(text):
            values = _numbers(part, datatype, parser)
            if values is None:
                values = _any_values(part, start, datatype, path)
            flat[start : start + len(values)] = values
            start += len(values)
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


def _parts(text: bytes) -> Iterator[bytes]:
    """Yield arrays of the values of a flat one."""
    if len(text) <= _PART:
        yield text
        return
    begin, last = 1, text.rindex(b"]")
    while begin <= last:
        end = text.find(b",", begin + _PART, last)
        if end < 0:
            end = last
        yield b"[%b]" % text[begin:end]
        begin = end + 1


def _numbers(part: bytes, datatype: Datatype, parser: simdjson.Parser) -> Array | None:
    """Return the values of an array, as of ``datatype``; None unless all are numbers that fit."""
    kind, dtype = _WIDEST.get(datatype.dtype.kind, ("", None))
    if dtype is None:
        return None
    try:
        parsed: Any = parser.parse(part)
        buffer = parsed.as_buffer(of_type=kind)
    except (ValueError, TypeError, RuntimeError):
        return None
    values: Array = np.frombuffer(buffer, dtype=dtype)
    if kind == "d":
        with np.errstate(over="ignore"):
            narrow = values.astype(datatype.dtype, copy=False)
        return None if np.isinf(narrow).any() else narrow
    bounds = np.iinfo(datatype.dtype)
    fits = not len(values) or bool(bounds.min <= values.min() and values.max() <= bounds.max)
    return values if fits else None


def _few_numbers(text: bytes, datatype: Datatype) -> Array | None:
    """Return what `_numbers` does, by way of Python's numbers."""
    if not datatype.is_number:
        return None
    decode, low, high = _bounded(datatype.dtype)
    try:
        values = decode(text)
    except msgspec.DecodeError:
        return None
    if values and not (low <= min(values) and max(values) <= high):
        return None
    return np.array(values, dtype=datatype.dtype)


@cache
def _bounded(dtype: np.dtype[Any]) -> tuple[Callable[[bytes], list[Any]], float, float]:
    """Return what reads an array of numbers, and the least and the largest that ``dtype`` holds."""
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        return msgspec.json.Decoder(list[float]).decode, -largest, largest
    bounds = np.iinfo(dtype)
    return msgspec.json.Decoder(list[int]).decode, int(bounds.min), int(bounds.max)


def _any_values(part: bytes, start: int, datatype: Datatype, path: Path) -> Array:
    """Return the values of an array, of which ``start`` is the index of the first.

    Raises `InvalidRequest` where one is at fault.
    """
    decode, wanted = _decoder(datatype.name)
    try:
        values = decode(part)
    except msgspec.ValidationError as error:
        raise InvalidRequest.at((*path, start + _index(error)), f"must be {wanted}") from None
    except msgspec.DecodeError:  # an array in it was empty, so that a value is missing
        raise InvalidRequest.at(path, "is nested otherwise than the shape says") from None
    if datatype.dtype.kind != "f":
        try:
            return np.array(values, dtype=datatype.dtype)
        except OverflowError:
            index = next(i for i, value in enumerate(values) if value >= 2**64)
            raise InvalidRequest.at((*path, start + index), f"must be {wanted}") from None
    with np.errstate(over="ignore"):
        array = np.array(values, dtype=np.float64).astype(datatype.dtype, copy=False)
    infinite = np.isinf(array)
    if infinite.any():
        raise InvalidRequest.at((*path, start + int(infinite.argmax())), f"must be {wanted}")
    return array


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
    kind: Any = str | None
    for _ in shape:
        kind = list[kind]
    try:
        values = msgspec.json.decode(text, type=list[str | None])
    except msgspec.DecodeError as error:
        try:
            values = _flattened(msgspec.json.decode(text, type=kind), shape, path)
        except msgspec.DecodeError:
            raise InvalidRequest.at((*path, _index(error)), "must be a string") from None
    if len(values) != size:
        raise _wrong_count(len(values), shape, size, path)
    flat = np.empty(size, dtype=object)
    flat[:] = [value if value is None else value.encode() for value in values]
    return flat.reshape(shape)


def _flattened(values: list[Any], shape: Sequence[int], path: Path) -> list[str | None]:
    level: list[Any] = [values]
    for dimension in shape:
        if any(len(each) != dimension for each in level):
            raise _wrong_nesting(shape, path)
        level = [item for each in level for item in each]
    return level
