"""JSON that is decoded lazily.

A value stays encoded (`msgspec.Raw`) until its members or its elements are requested, and the rest
is skipped. So the time and the memory to reject a body are in proportion to its bytes, whatever its
shape. Nothing here knows HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import orjson
from msgspec import UNSET, Raw, UnsetType

MAX_COMMAS = 50_000
"""An object with this many more commas than expected members is not decoded."""
NESTED_TOO_DEEPLY = "its arrays and objects are nested too deeply"

_decode_raw = msgspec.json.Decoder(Raw).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_elements = msgspec.json.Decoder(list[Raw]).decode
_decode_number = msgspec.json.Decoder(int | float).decode
_decode_text = msgspec.json.Decoder(str).decode
_Skipped = msgspec.defstruct("_Skipped", [], gc=False)
_decode_objects = msgspec.json.Decoder(list[_Skipped]).decode  # type: ignore[valid-type]

_OBJECT, _ARRAY, _NULL, _TEXT = ord("{"), ord("["), ord("n"), ord('"')
_OUTLINES: dict[int, Any] = {
    _OBJECT: {},
    _ARRAY: [],
    ord('"'): "",
    ord("t"): True,
    ord("f"): False,
    _NULL: None,
}


class NotJson(ValueError):
    """The bytes are not JSON; the message says why, and where."""


class NotAllObjects(ValueError):
    """An element of an array, at ``index``, is not an object."""

    def __init__(self, index: int) -> None:
        super().__init__(f"element {index} is not an object")
        self.index = index


def check(body: bytes) -> Raw:
    """Return ``body`` as a raw value. Raises `NotJson`."""
    try:
        if not body.isascii():
            body.decode()  # msgspec does not check what it skips
        return _decode_raw(body)
    except RecursionError:
        reason = NESTED_TOO_DEEPLY
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = _reason(body, str(error))
    raise NotJson(reason)


def is_object(value: Raw) -> bool:
    """Return True if a value is an object."""
    return memoryview(value)[0] == _OBJECT


def is_array(value: Raw) -> bool:
    """Return True if a value is an array."""
    return memoryview(value)[0] == _ARRAY


def is_text(value: Raw) -> bool:
    """Return True if a value is a string."""
    return memoryview(value)[0] == _TEXT


def is_null(value: Raw) -> bool:
    """Return True if a value is null."""
    return memoryview(value)[0] == _NULL


def commas(value: Raw) -> int:
    """Return the number of commas in a value, including its strings: an upper bound of its members.

    It takes a hundredth of the time to decode them.
    """
    return bytes(value).count(b",")


def commas_of_member(value: Raw, name: str) -> int:
    """Return the number of commas in one member of an object, without decoding the others."""
    member = _member_decoder(name)(value).content
    return 0 if member is UNSET else commas(member)


def members(value: Raw) -> dict[str, Raw]:
    """Return the members of an object; of those with the same name, the last."""
    return _decode_members(value)


def elements(value: Raw) -> list[Raw]:
    """Return the elements of an array."""
    return _decode_elements(value)


def count_objects(value: Raw) -> int:
    """Return the number of elements in an array of objects. Raises `NotAllObjects`."""
    try:
        return len(_decode_objects(value))
    except msgspec.ValidationError as error:
        message = str(error)  # ... - at `$[5]`
    raise NotAllObjects(int(message[message.rindex("[") + 1 : message.rindex("]")]))


def outline(value: Raw) -> Any:
    """Return a number, a boolean or null, and an empty value of the same kind for anything else.

    A number beyond float64 becomes infinity, so that its place can be reported.
    """
    first = memoryview(value)[0]
    if first in _OUTLINES:
        return _OUTLINES[first]
    try:
        return _decode_number(value)
    except msgspec.ValidationError:
        return float("inf")


def text(value: Raw) -> str:
    """Return a string."""
    return _decode_text(value)


def text_or_outline(value: Raw) -> Any:
    """Return a string as it is, and anything else as `outline` does."""
    return text(value) if is_text(value) else outline(value)


@cache
def _member_decoder(name: str) -> Callable[[Raw], Any]:
    member = msgspec.defstruct(
        "_Member", [("content", Raw | UnsetType, UNSET)], rename={"content": name}
    )
    return msgspec.json.Decoder(member).decode


def _reason(body: bytes, found: str) -> str:
    """Return why ``body`` is not JSON, from orjson, which has the best messages."""
    if not body:
        return "it is empty"
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "infinity" not in error.msg:  # such a number is valid JSON: the fault comes later
            return str(error)
    return found
