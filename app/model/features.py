"""Features: the inputs that a model expects, and how a sample becomes a row of float32.

This is the only place where names become columns; everything behind it works on the matrix.
It knows nothing of JSON or HTTP, only of mappings from names to numbers.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from operator import itemgetter, le
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from ..documents.suggestions import closest, difference
from .errors import MAX_FAULTS, Fault, FeatureMismatch, InvalidFeatures

FLOAT32_OVERFLOW = float(2**128 - 2**103)
"""The smallest magnitude that rounds to infinity as float32 (IEEE 754, round half to even)."""

_NUMBERS = frozenset({float, int})
_NUMBERS_AND_NULL = frozenset({float, int, type(None)})
_NAMES_SHOWN = 10
_NAME_LENGTH_SHOWN = 80
_MAX_GUESSES = 10
_MAX_COMPARISONS = 100
"""The most names that are compared to suggest replacements for the unknown names of one input: a
comparison takes longer than a row of a batch."""


Name = Annotated[str, Meta(min_length=1)]
Number = Annotated[
    float,
    Meta(
        gt=-FLOAT32_OVERFLOW,
        lt=FLOAT32_OVERFLOW,
        description="a number that is finite as a 32-bit float",
    ),
]


class Feature(Struct, frozen=True):
    """One input of a model, as its manifest describes it.

    ``minimum`` and ``maximum`` are the range seen in training (informative, not enforced), in
    ``unit``; ``example`` is a typical value, shown to people.
    """

    name: Name
    description: str = ""
    unit: str = ""
    minimum: Number | None = None
    maximum: Number | None = None
    nullable: bool = False
    example: Number | None = None

    @property
    def has_range(self) -> bool:
        """Return False if minimum and maximum are given, and no value lies between them."""
        return self.minimum is None or self.maximum is None or self.minimum <= self.maximum


class FeatureEncoder:
    """Turns samples (name -> number) into float32 rows in the order of the features.

    The fast way only accepts a sample or not; one that it doesn't accept is examined again to say
    what is wrong with it.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = tuple(features)
        self.names = tuple(feature.name for feature in features)
        self.width = len(self.names)
        self._lookalikes = {_appearance(name): name for name in self.names}
        self._known = frozenset(self.names)
        self.nullable = np.array([feature.nullable for feature in features], dtype=bool)
        self._types = _NUMBERS_AND_NULL if self.nullable.any() else _NUMBERS
        self.columns: Callable[[Any], tuple[Any, ...]] = (  # the values of a sample, in order
            itemgetter(*self.names)
            if self.width > 1
            else lambda sample: (sample[self.names[0]],)  # itemgetter of one name returns no tuple
        )
        unbounded = float("inf")
        self._minimum = np.array(
            [-unbounded if f.minimum is None else f.minimum for f in features], dtype=np.float32
        )
        self._maximum = np.array(
            [unbounded if f.maximum is None else f.maximum for f in features], dtype=np.float32
        )
        self._lows, self._highs = self._minimum.tolist(), self._maximum.tolist()

    def encode(self, sample: object) -> NDArray[np.float32]:
        """Return the row of one sample: float32, shape ``(1, width)``, NaN for null.

        Raises `FeatureMismatch` if the names aren't exactly the features', and `InvalidFeatures` if
        a value isn't a number that is finite as float32.
        """
        matrix = self._accept([sample])
        if matrix is None:
            faults = self._faults(sample, (), _Guesses(self._lookalikes))
            raise invalid_features(list(islice(faults, MAX_FAULTS)))
        return matrix

    def encode_batch(self, samples: Sequence[object]) -> NDArray[np.float32]:
        """Return the rows of many samples: float32, shape ``(len(samples), width)``.

        Raises as `encode` does, with the faults of all rows (at most ``MAX_FAULTS``), the path of
        each starting with the index of its row.
        """
        matrix = self._accept(samples)
        if matrix is None:
            guesses = _Guesses(self._lookalikes)
            faults = chain.from_iterable(
                self._faults(sample, (index,), guesses) for index, sample in enumerate(samples)
            )
            raise invalid_features(list(islice(faults, MAX_FAULTS)))
        return matrix

    def out_of_range(self, matrix: NDArray[np.float32]) -> dict[str, int]:
        """Count the values of ``matrix`` (shape ``(n, width)``) outside the range seen in training.

        Returns only the features that have any. NaN (a null) is inside every range.
        """
        if len(matrix) == 1 and self._is_inside(matrix[0].tolist()):
            return {}
        outside = (matrix < self._minimum) | (matrix > self._maximum)
        if not outside.any():
            return {}
        counts = outside.sum(axis=0).tolist()
        return {name: n for name, n in zip(self.names, counts, strict=True) if n}

    def _accept(self, samples: Sequence[object]) -> NDArray[np.float32] | None:
        """Return the matrix of ``samples``, or None if any of them has a fault."""
        if not samples:
            return np.empty((0, self.width), dtype=np.float32)
        values = self._values(samples)
        if values is None:
            return None
        try:
            # float64 first: it holds every JSON number, and the cast to float32 rounds once.
            wide = np.array(values, dtype=np.float64).reshape(len(samples), self.width)
        except OverflowError:  # a Python int beyond float64
            return None
        magnitude = np.abs(wide)
        if magnitude.max() < FLOAT32_OVERFLOW:  # written so that NaN fails
            return wide.astype(np.float32)
        null = np.isnan(wide)
        if (
            (null & ~self.nullable).any()
            or any(map(_is_nan, values))  # a NaN that was sent as a number
            or (magnitude >= FLOAT32_OVERFLOW).any()
        ):
            return None
        return wide.astype(np.float32)

    def _is_inside(self, row: list[float]) -> bool:
        """Return True if a row without nulls is inside every range: faster than numpy for few
        values.
        """
        return all(map(le, self._lows, row)) and all(map(le, row, self._highs))

    def _values(self, samples: Sequence[object]) -> list[Any] | None:
        """Return the values, sample by sample in the order of the features; None if a name or type
        is wrong.
        """
        if set(map(type, samples)) != {dict} or set(map(len, samples)) != {self.width}:  # type: ignore[arg-type]
            return None
        try:
            values = list(chain.from_iterable(map(self.columns, samples)))
        except KeyError:
            return None
        # Exact types: to isinstance, bool is an int, but to callers it is not a number.
        return values if set(map(type, values)) <= self._types else None

    def _faults(
        self, sample: object, path: tuple[str | int, ...], guesses: _Guesses
    ) -> Iterable[Fault]:
        """Yield the faults of one sample, lazily."""
        if not isinstance(sample, dict):
            yield Fault(
                path, f"must be an object of feature names and numbers, not {_kind(sample)}"
            )
            return
        missing = [name for name in self.names if name not in sample]
        for name in missing:
            yield Fault((*path, name), "is missing", mismatch=True)
        for name in sample:
            if name not in self._known:
                hint = guesses.hint(name, missing)
                yield Fault((*path, name), f"is not a feature of this model{hint}", mismatch=True)
        for feature in self.features:
            if feature.name in sample:
                problem = _problem(sample[feature.name], feature)
                if problem:
                    yield Fault((*path, feature.name), problem)


class _Guesses:
    """Suggestions for the unknown names of one input, as many as the limit of comparisons
    allows.
    """

    def __init__(self, lookalikes: Mapping[str, str]) -> None:
        self._lookalikes = lookalikes
        self._guesses = _MAX_GUESSES
        self._comparisons = _MAX_COMPARISONS

    def hint(self, name: str, missing: Sequence[str]) -> str:
        """Return what to add to the fault of an unknown name; empty without a suggestion."""
        meant = self._lookalikes.get(_appearance(name))
        if meant is not None and meant not in missing:
            return f", but was sent together with {meant!r}{difference(name, meant)}"
        if meant is None:
            self._guesses -= 1
            self._comparisons -= len(missing)
            if self._guesses < 0 or self._comparisons < 0:
                return ""
            meant = closest(name, missing)
        if meant is None:
            return ""
        return f"; did you mean {meant!r}{difference(name, meant)}?"


def _appearance(name: str) -> str:
    """Return a key that is the same for names that look the same."""
    if name.isascii() or len(name) > 2 * _NAME_LENGTH_SHOWN:
        return name
    composed = unicodedata.normalize("NFKC", name)
    return "".join(c for c in composed if unicodedata.category(c) != "Cf")


def _is_nan(value: float | None) -> bool:
    return value is not None and math.isnan(value)


def _problem(value: object, feature: Feature) -> str | None:
    if value is None:
        return None if feature.nullable else "must be a number; null is not accepted here"
    if type(value) not in _NUMBERS:
        return f"must be a number, not {_kind(value)}"
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        number = float("inf")
    if not abs(number) < FLOAT32_OVERFLOW:  # written so that NaN fails too
        return "must be finite as a 32-bit float (less than 3.4028236e38 in magnitude)"
    return None


def _kind(value: object) -> str:
    """Return the name of a value's type in JSON."""
    names = {bool: "a boolean", str: "a string", list: "an array", dict: "an object"}
    if value is None:
        return "null"
    return names.get(type(value), "a number" if type(value) in _NUMBERS else type(value).__name__)


def invalid_features(faults: Sequence[Fault]) -> InvalidFeatures:
    """Return the error for ``faults``: a mismatch if a name is missing or unknown."""
    if any(fault.mismatch for fault in faults):
        return FeatureMismatch(describe_mismatch(faults), faults)
    return InvalidFeatures("A feature has an invalid value.", faults)


def describe_mismatch(faults: Iterable[Fault]) -> str:
    """Return a sentence that lists the missing and the extra names, each once.

    Long names are cut, and long lists truncated: the sentence stays short whatever was sent.
    """
    missing: dict[str, None] = {}
    extra: dict[str, None] = {}
    for fault in faults:
        if fault.mismatch:
            names = missing if fault.detail == "is missing" else extra
            names[str(fault.path[-1])] = None
    alike = {_appearance(name) for name in missing} & {_appearance(name) for name in extra}
    write = ascii if alike else repr  # names that look the same are shown with escapes
    return f"Feature mismatch. Missing: {_listed(missing, write)}, Extra: {_listed(extra, write)}."


def _listed(names: Iterable[str], write: Callable[[object], str]) -> str:
    shown = [
        name if len(name) <= _NAME_LENGTH_SHOWN else name[:_NAME_LENGTH_SHOWN] + "…"
        for name in names
    ]
    more = len(shown) - _NAMES_SHOWN
    if more > 0:
        return write(shown[:_NAMES_SHOWN])[:-1] + f", and {more} more]"
    return write(shown)
