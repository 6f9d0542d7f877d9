"""The answers of a handler: from what it returns to the body of a response."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from msgspec import Struct

from ..errors import NonFiniteOutput, OutputsTooLarge
from .errors import HandlerFailed

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BINARY = "application/octet-stream"
BYTES_PER_VALUE = 25
"""So many bytes of text, or other bytes, count as one value: about those of a number in JSON."""
_CONTENT_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+( *; *[\w.-]+=[\w.\"+-]+)*", re.ASCII)
_DEEPEST = 64
_SCALARS = (str, bool, int, float, np.bool_, np.integer, np.floating)


class HandlerAnswer(Struct, frozen=True):
    """The body of a response, its media type, and its status."""

    body: bytes
    content_type: str
    status: int = 200


def encode_answer(value: Any, limit: int = 0) -> HandlerAnswer:
    """Return ``value``, which a handler returned, as the body of a response.

    Bytes stay as they are, with a media type where it is a pair ``(bytes, content_type)``; a string
    is text; all else is JSON, with arrays as lists. Raises `NonFiniteOutput` for NaN and infinity,
    which JSON doesn't have, `OutputsTooLarge` for more than ``limit`` values (0 is no limit), and
    `HandlerFailed` for what can't be JSON.
    """
    content_type = BINARY
    if isinstance(value, tuple) and len(value) == 2 and _is_bytes(value[0]):
        value, content_type = value[0], _content_type(value[1])
    if _is_bytes(value):
        check_size(len(value), limit)
        return HandlerAnswer(bytes(value), content_type)
    if isinstance(value, str):
        text = value.encode("utf-8", "replace")
        check_size(len(text), limit)
        return HandlerAnswer(text, TEXT)
    plain = plain_value(value, limit)
    try:
        return HandlerAnswer(orjson.dumps(plain), JSON)
    except orjson.JSONEncodeError as error:
        raise HandlerFailed(f"its answer can't be JSON: {error}") from error


def plain_value(value: Any, limit: int = 0) -> Any:
    """Return ``value`` made of dicts, lists, strings and finite numbers alone, as JSON has them.

    Raises what `encode_answer` raises.
    """
    return _Plain(limit).of(value)


def _is_bytes(value: Any) -> bool:
    return isinstance(value, bytes | bytearray | memoryview)


def _content_type(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 200 or not _CONTENT_TYPE.fullmatch(value):
        raise HandlerFailed("the content type of its answer is not a media type")
    return value


def check_size(size: int, limit: int) -> None:
    """Raise `OutputsTooLarge` if so many bytes are more than ``limit`` values; 0 is no limit."""
    values = -(-size // BYTES_PER_VALUE)
    if 0 < limit < values:
        raise OutputsTooLarge(values, limit)


class _Plain:
    """Makes a value of dicts, lists, strings and numbers alone, and counts what is in it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._values = 0

    def of(self, value: Any, depth: int = 0) -> Any:
        if depth > _DEEPEST:
            raise HandlerFailed(f"its answer is nested more than {_DEEPEST} deep, or in itself")
        if isinstance(value, Mapping):
            self._count(1)
            return {self._key(key): self.of(each, depth + 1) for key, each in value.items()}
        if isinstance(value, list | tuple):
            self._count(1)
            return [self.of(each, depth + 1) for each in value]
        if value is None or isinstance(value, _SCALARS):
            return self._scalar(value)
        return self._array(value, depth)

    def _scalar(self, value: Any) -> Any:
        self._count(1, len(value) if isinstance(value, str) else 0)
        if isinstance(value, str):
            return value.encode("utf-8", "replace").decode()
        if isinstance(value, float | np.floating):
            if not math.isfinite(value):
                raise NonFiniteOutput
            return float(value)
        if isinstance(value, bool | np.bool_) or value is None:
            return None if value is None else bool(value)
        number = int(value)
        if not -(2**63) <= number < 2**64:
            raise HandlerFailed("its answer has an integer of more than 64 bits")
        return number

    def _array(self, value: Any, depth: int) -> Any:
        """Return an array of numpy, or of a library whose arrays become its, as lists."""
        if not isinstance(value, np.ndarray):
            if not hasattr(value, "tolist"):
                raise HandlerFailed(
                    f"its answer has a value of type {type(value).__name__[:80]}, which is neither "
                    "a dict, a list, a string, a number, nor an array"
                )
            size = getattr(value, "numel", lambda: getattr(value, "size", 1))()
            self._count(size if isinstance(size, int) else 1)
            return self.of(value.tolist(), depth + 1)
        if value.dtype.kind not in "biuf":
            self._count(value.size)
            return self.of(value.tolist(), depth + 1)
        self._count(value.size)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise NonFiniteOutput
        return value.tolist()

    def _count(self, values: int, size: int = 0) -> None:
        self._values += values
        self._bytes += size
        total = self._values + self._bytes // BYTES_PER_VALUE
        if 0 < self._limit < total:
            raise OutputsTooLarge(total, self._limit)

    def _key(self, key: Any) -> str:
        if isinstance(key, str):
            self._count(0, len(key))
            return key.encode("utf-8", "replace").decode()
        if isinstance(key, int | np.integer) and not isinstance(key, bool):
            return str(int(key))
        raise HandlerFailed(
            f"its answer has a key of type {type(key).__name__[:80]}; keys must be strings"
        )
