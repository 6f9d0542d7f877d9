"""The encoder: from samples to the rows that a network takes, or to the faults that they have.

This is the only place where names become columns; everything behind it works on arrays. It knows
nothing of JSON or HTTP, only of mappings from names to values.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import chain, islice
from operator import gt, itemgetter, lt
from typing import Any

import numpy as np

from .columns import FLOAT_CODES, UNKNOWN_CATEGORY, TensorColumns, kind_of
from .errors import MAX_FAULTS, Fault
from .feature_faults import Guesses, appearance, invalid_features
from .features import Feature
from .signature import FEATURES, Array, Tensors, TensorSpec, no_rows

_LONGEST_IN_KEY = 100
"""Characters of a string that is part of a key as it is."""


class FeatureEncoder:
    """Turns samples (name -> value) into rows: an array for each tensor of ``inputs``, which the
    ``features`` fill. By default that is one float32 matrix, in the order of the features.

    The fast way only accepts a sample or not; one that it doesn't accept is examined again to say
    what is wrong with it.
    """

    def __init__(self, features: Sequence[Feature], inputs: Sequence[TensorSpec] = ()) -> None:
        self.features = tuple(features)
        self.names = tuple(feature.name for feature in features)
        self.width = len(self.names)
        self._lookalikes = {appearance(name): name for name in self.names}
        self._known = frozenset(self.names)
        self._positions = {name: index for index, name in enumerate(self.names)}
        inputs = inputs or (TensorSpec(FEATURES, "FP32", (-1, self.width)),)
        self.tensors = tuple(TensorColumns(spec, _filling(spec, features)) for spec in inputs)
        self._place = {
            feature.name: (columns, index)
            for columns in self.tensors
            for index, feature in enumerate(columns.features)
        }
        self._picked = [
            [self._positions[f.name] for f in columns.features] for columns in self.tensors
        ]
        self._fills_one = len(self.tensors) == 1 and self.tensors[0].features == self.features
        places = [self._place[name] for name in self.names]
        self._types_of_each = [columns.types(index) for columns, index in places]
        self._types_of_all = self._types_of_matrix()
        self.columns: Callable[[Any], tuple[Any, ...]] = (  # the values of a sample, in order
            itemgetter(*self.names)
            if self.width > 1
            else lambda sample: (sample[self.names[0]],)  # itemgetter of one name returns no tuple
        )
        self._ranges = [_Ranges(columns) for columns in self.tensors]
        self._code = FLOAT_CODES[self.tensors[0].spec.datatype] if self.is_matrix else ""
        self._pack_row = struct.Struct(f"={self.width}{self._code}").pack if self._code else None
        self.key = self._key()

    @property
    def is_matrix(self) -> bool:
        """True if the rows are one matrix of floats with the features in their order."""
        return (
            self._fills_one
            and self.tensors[0].spec.datatype in FLOAT_CODES
            and len(self.tensors[0].spec.shape) == 2
            and all(feature.kind == "number" for feature in self.features)
        )

    @property
    def places(self) -> Mapping[str, tuple[TensorSpec, int]]:
        """The place of each feature's value: the tensor, and the column of it."""
        return {
            name: (columns.spec, index) for name, (columns, index) in sorted(self._place.items())
        }

    def encode(self, sample: object) -> Tensors:
        """Return the row of one sample: arrays of one row, NaN for null where they hold it.

        Raises `FeatureMismatch` if the names aren't exactly the features', and `InvalidFeatures` if
        a value isn't one of its feature's.
        """
        rows = self._accept([sample])
        if rows is None:
            faults = self._faults(sample, (), Guesses(self._lookalikes))
            raise invalid_features(list(islice(faults, MAX_FAULTS)))
        return rows

    def encode_batch(self, samples: Sequence[object]) -> Tensors:
        """Return the rows of many samples: arrays of ``len(samples)`` rows.

        Raises as `encode` does, with the faults of all rows (at most ``MAX_FAULTS``), the path of
        each starting with the index of its row.
        """
        rows = self._accept(samples)
        if rows is None:
            guesses = Guesses(self._lookalikes)
            faults = chain.from_iterable(
                self._faults(sample, (index,), guesses) for index, sample in enumerate(samples)
            )
            raise invalid_features(list(islice(faults, MAX_FAULTS)))
        return rows

    def assemble(self, values: Sequence[Any], rows: int) -> Tensors | None:
        """Return ``rows`` rows of ``values``, row by row in the order of the features, each of a
        type that its feature may have; None if one isn't a value of its feature.
        """
        if not rows:
            return self.no_rows()
        if self._fills_one:
            (columns,) = self.tensors
            array = columns.array(values)
            return None if array is None else {columns.spec.name: array}
        tensors: dict[str, Array] = {}
        for columns, picked in zip(self.tensors, self._picked, strict=True):
            some = [None] * (rows * len(picked))
            for index, position in enumerate(picked):
                some[index :: len(picked)] = values[position :: self.width]
            array = columns.array(some)
            if array is None:
                return None
            tensors[columns.spec.name] = array
        return tensors

    def pack(self, values: Sequence[Any], rows: int) -> Tensors | None:
        """Return what `assemble` does, sooner where the rows are a matrix.

        Numbers must be finite, as those of JSON are.
        """
        pack_row = self._pack_row
        if pack_row is None or not rows:
            return self.assemble(values, rows)
        try:
            # Rounds to float32 as numpy does, and refuses what rounds to infinity.
            packed = (
                pack_row(*values)
                if rows == 1
                else struct.pack(f"={len(values)}{self._code}", *values)
            )
        except OverflowError:
            return None
        except struct.error:  # None is not a number to it
            return self.assemble(values, rows)
        (columns,) = self.tensors
        array: Array = np.ndarray((rows, self.width), columns.dtype, bytearray(packed))
        return {columns.spec.name: array}

    def no_rows(self) -> Tensors:
        """Return the rows of no sample."""
        return {columns.spec.name: no_rows(columns.spec) for columns in self.tensors}

    def sample(self, rows: Tensors, index: int) -> dict[str, Any]:
        """Return what a client sent for one of ``rows``, null as None."""
        return {
            name: columns.value(rows[columns.spec.name], index, column)
            for name, (columns, column) in zip(
                self.names, map(self._place.__getitem__, self.names), strict=True
            )
        }

    def out_of_range(self, rows: Tensors) -> Mapping[str, int]:
        """Count the numbers of ``rows`` outside the range seen in training.

        Returns only the features that have any. NaN (a null) is inside every range.
        """
        if len(self._ranges) == 1:
            return self._ranges[0].outside(rows)
        counts: dict[str, int] = {}
        for ranges in self._ranges:
            counts.update(ranges.outside(rows))
        return counts

    def _key(self) -> Callable[[Tensors], Hashable]:
        """Return a function from a row to a value that only the same row has."""
        names = [columns.spec.name for columns in self.tensors]
        if len(names) == 1 and self.tensors[0].dtype.kind != "O":
            (only,) = names
            return lambda row: row[only].tobytes()
        of_text = {each.spec.name for each in self.tensors if each.dtype.kind == "O"}
        return lambda row: tuple(
            tuple(map(_text_key, row[name].reshape(-1))) if name in of_text else row[name].tobytes()
            for name in names
        )

    def _accept(self, samples: Sequence[object]) -> Tensors | None:
        """Return the rows of ``samples``, or None if any of them has a fault."""
        if not samples:
            return self.no_rows()
        values = self._values(samples)
        return None if values is None else self.assemble(values, len(samples))

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
        if self._types_of_all is not None:  # null where there is none is found in the array
            return values if self._types_of_all.issuperset(map(type, values)) else None
        return values if self.are_of_their_types(values) else None

    def are_of_their_types(self, values: Sequence[Any]) -> bool:
        """Return True if each of ``values``, row by row, is of a type that its feature may have."""
        # Exact types: to isinstance, bool is an int, but to callers it is not a number.
        return all(
            types.issuperset(map(type, values[index :: self.width]))
            for index, types in enumerate(self._types_of_each)
        )

    def _types_of_matrix(self) -> frozenset[type] | None:
        """Return the types that are the same for all features but for null, or None.

        Only where all tensors are of floats, which refuse a NaN that is not accepted.
        """
        if any(columns.dtype.kind != "f" for columns in self.tensors):
            return None
        distinct = {types | {type(None)} for types in self._types_of_each}
        return distinct.pop() if len(distinct) == 1 else None

    def _faults(
        self, sample: object, path: tuple[str | int, ...], guesses: Guesses
    ) -> Iterable[Fault]:
        """Yield the faults of one sample, lazily."""
        if not isinstance(sample, dict):
            yield Fault(
                path, f"must be an object of feature names and values, not {kind_of(sample)}"
            )
            return
        missing = [name for name in self.names if name not in sample]
        for name in missing:
            yield Fault((*path, name), "is missing", mismatch=True)
        for name in sample:
            if name not in self._known:
                hint = guesses.hint(name, missing)
                yield Fault((*path, name), f"is not a feature of this model{hint}", mismatch=True)
        for name in self.names:
            if name in sample:
                columns, index = self._place[name]
                problem = columns.problem(index, sample[name])
                if problem == UNKNOWN_CATEGORY:
                    problem += guesses.category(sample[name], columns.features[index].categories)
                if problem:
                    yield Fault((*path, name), problem)


class _Ranges:
    """The ranges seen in training of the features in one tensor."""

    def __init__(self, columns: TensorColumns) -> None:
        unbounded = float("inf")
        features, is_float = columns.features, columns.dtype.kind == "f"
        self._name = columns.spec.name
        self._names = [feature.name for feature in features]
        self._is_needed = columns.dtype.kind in "fiu" and any(
            feature.minimum is not None or feature.maximum is not None for feature in features
        )
        self._is_rounded = not is_float
        low = np.array([-unbounded if f.minimum is None else f.minimum for f in features], float)
        high = np.array([unbounded if f.maximum is None else f.maximum for f in features], float)
        with np.errstate(over="ignore"):  # a bound beyond FP16 is infinite there
            self._minimum = columns.held(low) if is_float else low
            self._maximum = columns.held(high) if is_float else high
        self._lows: list[float] = self._minimum.tolist()
        self._highs: list[float] = self._maximum.tolist()

    def outside(self, rows: Tensors) -> dict[str, int]:
        """Count the values outside the range of each feature that has any."""
        if not self._is_needed:
            return {}
        values = rows[self._name]
        if self._is_rounded:
            values = values.astype(np.float64)
        if values.size != len(self._names):
            return self._outside_of_many(values)
        row = values.ravel().tolist()
        # NaN is neither below nor above.
        if True not in map(lt, row, self._lows) and True not in map(gt, row, self._highs):
            return {}
        return {
            name: 1
            for name, value, low, high in zip(
                self._names, row, self._lows, self._highs, strict=True
            )
            if value < low or value > high
        }

    def _outside_of_many(self, values: Array) -> dict[str, int]:
        matrix = values.reshape(len(values), len(self._names))
        outside = (matrix < self._minimum) | (matrix > self._maximum)
        if not outside.any():
            return {}
        counts = outside.sum(axis=0).tolist()
        return {name: n for name, n in zip(self._names, counts, strict=True) if n}


def _text_key(text: str) -> str | bytes:
    """Return what only ``text`` has, of few bytes however long it is: a cache holds many."""
    return text if len(text) <= _LONGEST_IN_KEY else sha256(text.encode()).digest()


def _filling(spec: TensorSpec, features: Sequence[Feature]) -> list[Feature]:
    """Return the features that are the columns of a tensor, in their order there."""
    placed = [feature for feature in features if feature.tensor == spec.name]
    return sorted(placed, key=lambda feature: feature.column or 0)
