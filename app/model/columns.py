"""The columns of an input tensor: the values of features on one side, an array on the other.

Nothing is converted that a client didn't send: a number isn't made of a string, nor an integer of a
fraction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import eq
from typing import Any

import numpy as np

from .features import BF16_OVERFLOW, FLOAT32_OVERFLOW, Feature
from .signature import DTYPES, Array, TensorSpec, as_datatype

_NUMBERS = frozenset({float, int})
_TYPES: Mapping[str, frozenset[type]] = {
    "number": _NUMBERS,
    "integer": _NUMBERS,  # JSON has one kind of number: 5.0 is an integer, 5.5 is refused
    "boolean": frozenset({bool}),
    "category": frozenset({str}),
}
_WORDS = {
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "category": "a string",
}
_OVERFLOW: Mapping[str, tuple[float, str]] = {
    "FP16": (65520.0, "a 16-bit float (less than 65520 in magnitude)"),
    "FP32": (FLOAT32_OVERFLOW, "a 32-bit float (less than 3.4028236e38 in magnitude)"),
    "FP64": (math.inf, "a 64-bit float"),
    "BF16": (BF16_OVERFLOW, "a bfloat16 (less than 3.3961774e38 in magnitude)"),
}
"""The smallest magnitude that is too large for each datatype, and in words."""
FLOAT_CODES = {"FP32": "f", "FP64": "d"}
"""The codes of Python's struct for the floats that it packs as numpy rounds them."""
UNKNOWN_CATEGORY = "is not one of the feature's values"
LARGEST_EXACT = {"FP16": 2**11, "FP32": 2**24, "FP64": 2**53 - 1, "BF16": 2**8}
"""The integers up to this magnitude are exact in each datatype, and no other rounds to one of them
as float64, which values are compared in.
"""


def overflow(datatype: str) -> float:
    """Return the smallest magnitude that is too large for a datatype of floats; infinite where all
    numbers fit, and for other datatypes.
    """
    return _OVERFLOW[datatype][0] if datatype in _OVERFLOW else math.inf


class TensorColumns:
    """The features in the columns of one input tensor, of ``spec``; they fill it.

    ``nullable`` says of each whether null is accepted.
    """

    def __init__(self, spec: TensorSpec, features: Sequence[Feature]) -> None:
        self.spec = spec
        self.features = tuple(features)
        self.width = len(self.features)
        self.dtype = DTYPES[spec.datatype]
        self.shape = (-1, *(abs(size) for size in spec.shape[1:]))
        self.nullable = np.array([feature.nullable for feature in features], dtype=bool)
        self._is_text = self.dtype.kind == "O"
        self._limit = overflow(spec.datatype)
        self._known = [
            # What stands for null is accepted, as it is of numbers.
            frozenset(f.categories) | ({f.null_as} if f.nullable else frozenset())
            if f.kind == "category" and f.unknown == "refuse"
            else None
            for f in features
        ]
        self._codes: dict[int, dict[str, int]] = {
            index: {value: code for code, value in enumerate(feature.categories)}
            for index, feature in enumerate(features)
            if feature.kind == "category" and not self._is_text
        }
        self._whole = [i for i, feature in enumerate(features) if feature.kind == "integer"]

    def types(self, index: int) -> frozenset[type]:
        """Return the types of the values that the feature at ``index`` may have."""
        feature = self.features[index]
        types = _TYPES[feature.kind]
        return types | {type(None)} if feature.nullable else types

    def array(self, values: Sequence[Any]) -> Array | None:
        """Return the array of ``values``, row by row and of the right types; None if any of them
        isn't one of its feature's.
        """
        if self._codes:
            coded = self._coded(values)
            if coded is None:
                return None
            values = coded
        if self.dtype.kind == "f":
            return self._floats(values)
        return self._strings(values) if self._is_text else self._integers(values)

    def held(self, numbers: Array) -> Array:
        """Return numbers as the tensor holds them, which rounds them where it must."""
        return as_datatype(numbers, self.spec.datatype)

    def problem(self, index: int, value: object) -> str | None:
        """Return what is wrong with a value of the feature at ``index``; None if nothing is."""
        feature = self.features[index]
        wanted = _WORDS[feature.kind]
        if value is None:
            return None if feature.nullable else f"must be {wanted}; null is not accepted here"
        if type(value) not in self.types(index):
            return f"must be {wanted}, not {kind_of(value)}"
        if isinstance(value, str):
            known = self._known[index]
            if known is not None and value not in known:
                return UNKNOWN_CATEGORY
            return None if value.isascii() or _is_text(value) else "must be valid Unicode"
        return self._numeric_problem(feature, value)

    def _numeric_problem(self, feature: Feature, value: Any) -> str | None:
        if feature.kind == "integer" and not _is_whole(value):
            return "must be an integer"
        if self.dtype.kind == "f":
            limit, words = _OVERFLOW[self.spec.datatype]
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if not abs(number) < limit:  # written so that NaN fails too
                return f"must be finite as {words}"
            if feature.kind == "integer" and abs(number) > LARGEST_EXACT[self.spec.datatype]:
                return (
                    f"must be at most {LARGEST_EXACT[self.spec.datatype]:,} in magnitude, beyond "
                    f"which the model's {self.spec.datatype} holds no integer exactly"
                )
        elif self.dtype.kind in "iu":
            bounds = np.iinfo(self.dtype)
            if not bounds.min <= value <= bounds.max:
                return f"must be from {bounds.min:,} to {bounds.max:,}"
        return None

    def value(self, array: Array, row: int, index: int) -> Any:
        """Return what a client sent for a value of ``array``."""
        feature = self.features[index]
        found = array.reshape(len(array), -1)[row, index]
        if self._is_text:
            return None if feature.nullable and found == feature.null_as else found
        number = found.item()
        if feature.nullable and (
            math.isnan(number) if self.dtype.kind == "f" else number == feature.null_as
        ):
            return None
        if feature.kind == "category":
            return feature.categories[int(number)]
        if feature.kind == "boolean":
            return bool(number)
        return int(number) if feature.kind == "integer" else number

    def _coded(self, values: Sequence[Any]) -> Sequence[Any] | None:
        """Return ``values`` with the position of each category; None if one isn't known."""
        coded = list(values)
        for index, codes in self._codes.items():
            try:
                coded[index :: self.width] = [
                    None if value is None else codes[value] for value in coded[index :: self.width]
                ]
            except KeyError:
                return None
        return coded

    def _floats(self, values: Sequence[Any]) -> Array | None:
        try:
            # float64 first: it holds every JSON number, and the cast rounds once.
            wide = np.array(values, dtype=np.float64).reshape(self.shape)
        except OverflowError:  # a Python int beyond float64
            return None
        magnitude = np.abs(wide)
        if not magnitude.max() < self._limit:  # written so that NaN fails
            null = np.isnan(wide)
            if (
                (null & ~self.nullable).any()
                or any(map(is_nan, values))  # a NaN that was sent as a number
                or (magnitude >= self._limit).any()
            ):
                return None
        if self._whole and not self._are_whole(wide):
            return None
        return self.held(wide)

    def _are_whole(self, wide: Array) -> bool:
        some = wide.reshape(-1, self.width)[:, self._whole]
        some = some[~np.isnan(some)]
        largest = LARGEST_EXACT[self.spec.datatype]
        return bool((some == np.floor(some)).all() and (np.abs(some) <= largest).all())

    def _integers(self, values: Sequence[Any]) -> Array | None:
        """Return whole numbers or booleans, each exact however large."""
        if None in values:
            values = self._without_nulls(values)
        if any(map(_is_fraction, values)):
            return None
        try:
            array = np.array([int(value) for value in values], dtype=object).astype(self.dtype)
        except OverflowError:
            return None
        if self.dtype.kind != "b" and not all(map(eq, array.tolist(), values)):
            return None  # beyond the datatype
        return array.reshape(self.shape)

    def _strings(self, values: Sequence[Any]) -> Array | None:
        if None in values:
            values = self._without_nulls(values)
        for index, known in enumerate(self._known):
            if known is not None and not known.issuperset(values[index :: self.width]):
                return None
        if not all(value.isascii() or _is_text(value) for value in values):
            return None
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array.reshape(self.shape)

    def _without_nulls(self, values: Sequence[Any]) -> Sequence[Any]:
        filled = list(values)
        for index, feature in enumerate(self.features):
            if feature.nullable:
                filled[index :: self.width] = [
                    feature.null_as if value is None else value
                    for value in filled[index :: self.width]
                ]
        return filled


def kind_of(value: object) -> str:
    """Return the name of a value's type in JSON."""
    names = {bool: "a boolean", str: "a string", list: "an array", dict: "an object"}
    if value is None:
        return "null"
    return names.get(type(value), "a number" if type(value) in _NUMBERS else type(value).__name__)


def is_nan(value: object) -> bool:
    """Return True for a float that is NaN."""
    return isinstance(value, float) and math.isnan(value)


def _is_whole(value: float) -> bool:
    return isinstance(value, int) or value.is_integer()


def _is_fraction(value: object) -> bool:
    return isinstance(value, float) and not value.is_integer()


def _is_text(value: str) -> bool:
    """Return True unless ``value`` has half of a surrogate pair, which UTF-8 can't hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
