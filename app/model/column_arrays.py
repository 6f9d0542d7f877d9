"""Values of features that come as arrays: a column for each feature, or a whole input tensor.

They are held to the rules of `columns`, which takes the values of samples one by one. Here no
Python object is made of a number, unless it is one to complain of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .columns import LARGEST_EXACT, TensorColumns
from .errors import MAX_FAULTS
from .features import Feature
from .signature import Array

Mask = NDArray[np.bool_]
_KINDS = {"number": "fiu", "integer": "fiu", "boolean": "b", "category": "O"}


class ArrayFault(NamedTuple):
    """A value that isn't its feature's, at a row and a column of the tensor."""

    row: int
    column: int
    value: Any
    detail: str


class FaultyArray(ValueError):
    """An array with values that aren't their features'; ``faults`` has some of them."""

    def __init__(self, faults: Sequence[ArrayFault]) -> None:
        super().__init__(faults[0].detail)
        self.faults = tuple(faults)


class ColumnArrays:
    """The features in one input tensor, whose values come as arrays."""

    def __init__(self, columns: TensorColumns) -> None:
        self.spec = columns.spec
        self.features = columns.features
        self.shape = columns.shape
        self._columns = columns
        largest = LARGEST_EXACT.get(columns.spec.datatype)
        self._each = [_Column(each, columns.dtype, largest) for each in columns.features]
        self._restricted = [i for i, column in enumerate(self._each) if column.is_restricted]

    def kinds(self, index: int) -> str:
        """Return numpy's kinds of the arrays that may hold the values of a feature."""
        feature = self.features[index]
        # A boolean has no null: it comes as 0, 1 or NaN where there may be one.
        takes_floats = feature.kind == "boolean" and feature.nullable
        return _KINDS[feature.kind] + "f" * takes_floats

    def check(self, array: Array) -> None:
        """Raise `FaultyArray` unless ``array``, of the tensor's datatype, has its features' values.

        Positions of categories, 0 and 1 for booleans, and what stands for null are as the network
        takes them.
        """
        matrix = array if array.ndim == 2 else array.reshape(len(array), len(self._each))
        self._check_finite(matrix)
        for index in self._restricted:
            wrong = self._each[index].is_wrong(matrix[:, index])
            if wrong.any():
                raise FaultyArray(list(self._faults(index, matrix[:, index], wrong, is_sent=False)))

    def join(self, values: Sequence[Array]) -> Array:
        """Return the tensor whose columns are ``values``, as clients know them: an array of one
        dimension for each feature, of one of its `kinds`; strings are `str`, and null is NaN.

        Raises `FaultyArray`.
        """
        columns = self._columns
        matrix = np.empty((len(values[0]), len(values)), dtype=columns.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large becomes infinite
            for index, sent in enumerate(values):
                column, wrong = self._each[index].encode(sent)
                if wrong is not None and wrong.any():
                    raise FaultyArray(list(self._faults(index, sent, wrong, is_sent=True)))
                matrix[:, index] = column
            matrix = columns.held(matrix)
        self._check_finite(matrix)
        return matrix.reshape(columns.shape)

    def _check_finite(self, matrix: Array) -> None:
        """Raise `FaultyArray` for what is infinite, or NaN where there is no null."""
        if matrix.dtype.kind != "f" or np.count_nonzero(np.isfinite(matrix)) == matrix.size:
            return
        wrong = ~np.isfinite(matrix) & ~(np.isnan(matrix) & self._columns.nullable)
        faults = [
            self._fault(row, column, matrix[row, column].item(), is_sent=True)
            for row, column in np.argwhere(wrong)[:MAX_FAULTS].tolist()
        ]
        if faults:
            raise FaultyArray(faults)

    def _faults(
        self, index: int, values: Array, wrong: Mask, *, is_sent: bool
    ) -> Iterator[ArrayFault]:
        for row in np.flatnonzero(wrong)[:MAX_FAULTS].tolist():
            value = values[row] if values.dtype.kind == "O" else values[row].item()
            yield self._fault(row, index, value, is_sent=is_sent)

    def _fault(self, row: int, index: int, value: Any, *, is_sent: bool) -> ArrayFault:
        """Return the fault of a value: as a client knows it, or as the network does."""
        feature = self.features[index]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            kind = "an integer" if feature.kind == "integer" else f"a {feature.kind}"
            detail = f"must be {kind}; null (NaN) is not accepted for {feature.name!r}"
        elif is_sent or feature.kind == "integer" or isinstance(value, str):
            detail = self._columns.problem(index, value) or "is not accepted"
            if not isinstance(value, str):
                detail += f", for {feature.name!r}"
        elif feature.kind == "boolean":
            detail = f"must be 0 or 1, for {feature.name!r}"
        else:
            last = len(feature.categories) - 1
            detail = f"must be the position of a category, 0 to {last}, for {feature.name!r}"
        return ArrayFault(row, index, value, detail)


class _Column:
    """The values of one feature: as clients know them, and as they are in a tensor of ``dtype``.

    ``largest`` is the magnitude up to which that holds all integers, if it is one of floats.
    """

    def __init__(self, feature: Feature, dtype: np.dtype[Any], largest: int | None) -> None:
        self._dtype = dtype
        self._kind = feature.kind
        self._null_as = feature.null_as
        self._nullable = feature.nullable
        self._categories = len(feature.categories)
        self._takes_any_text = feature.unknown == "pass"
        self._known: set[Any] = set(feature.categories)
        self._sent: dict[Any, Any] = {}
        if dtype.kind != "O":
            self._sent = {value: code for code, value in enumerate(feature.categories)}
        if feature.nullable:
            self._known |= {None, feature.null_as}
            self._sent[None] = np.nan if dtype.kind == "f" else feature.null_as
        if self._kind == "boolean":
            self._low, self._high = 0, 1
        elif largest is not None:
            self._low, self._high = -largest, largest
        elif dtype.kind in "iu":
            bounds = np.iinfo(dtype)
            self._low, self._high = int(bounds.min), int(bounds.max)

    @property
    def is_restricted(self) -> bool:
        """True if a tensor may have finite values that are none of the feature's."""
        if self._kind == "category":
            return not self._takes_any_text
        return (self._kind == "integer" and self._dtype.kind == "f") or (
            self._kind == "boolean" and self._dtype.kind != "b"
        )

    def is_wrong(self, values: Array) -> Mask:
        """Return which values of a tensor aren't the feature's; NaN is not among them."""
        if self._dtype.kind == "O":
            return self._is_unknown(values)
        if self._kind != "category":
            right = self._is_whole(values)
        else:
            right = (values >= 0) & (values < self._categories) & (values == np.floor(values))
        if self._dtype.kind == "f":
            right |= np.isnan(values)
        elif self._nullable:
            right |= values == self._null_as
        return ~right

    def encode(self, values: Array) -> tuple[Array, Mask | None]:
        """Return what a client sent as values of the tensor, and which of them aren't the
        feature's; None where that shows in the tensor.
        """
        if self._kind == "category":
            return self._encode_strings(values)
        if self._kind == "number" or values.dtype.kind == "b":
            return values, None
        if values.dtype.kind != "f":
            return values, (values < self._low) | (values > self._high)
        wide = values.astype(np.float64)
        null = np.isnan(wide)
        wrong = ~(self._is_whole(wide) | (null & self._nullable))
        if self._dtype.kind == "f":
            return wide, wrong
        encoded = np.where(null, 0, wide).astype(self._dtype)
        if self._nullable:
            encoded[null] = self._null_as
        return encoded, wrong

    def _is_whole(self, values: Array) -> Mask:
        """Return which floats are integers that the tensor holds."""
        limit = float(self._high)
        # The largest 64-bit integer is none of float64, which rounds it up.
        fits = values <= limit if limit == self._high else values < limit
        whole: Mask = (values == np.floor(values)) & (values >= self._low) & fits
        return whole

    def _encode_strings(self, values: Array) -> tuple[Array, Mask]:
        column = np.empty(len(values), dtype=self._dtype)
        sent, is_text = self._sent, self._dtype.kind == "O"
        column[:] = [sent.get(value, value if is_text else 0) for value in values]
        return column, self._is_unknown(values)

    def _is_unknown(self, values: Array) -> Mask:
        """Return which strings are none of the categories; null is None."""
        if self._takes_any_text:
            unknown = [value is None and not self._nullable for value in values]
        else:
            known = self._known
            unknown = [value not in known for value in values]
        return np.array(unknown, dtype=bool)
