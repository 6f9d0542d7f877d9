"""Valid rows in the form in which they are kept until all of a body is read.

A row of a matrix of floats is its bytes, which no copy is cheaper than; any other is the arrays of
one row.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ...model.columns import FLOAT_CODES
from ...model.encoder import FeatureEncoder
from ...model.signature import Tensors, row_count, select_rows


class RowForm(Protocol):
    """How rows are kept."""

    def row(self, values: Sequence[Any]) -> Any:
        """Return the row of ``values``, in the order of the features and each of its feature's
        type, null as None. Raises `ValueError` or `OverflowError` for one that isn't a value of its
        feature.
        """
        ...

    def split(self, rows: Tensors) -> list[Any]:
        """Return each of ``rows``."""
        ...

    def join(self, rows: Sequence[Any]) -> Tensors:
        """Return ``rows`` together."""
        ...


class _MatrixRows:
    """Rows of one matrix of floats, as their bytes."""

    def __init__(self, encoder: FeatureEncoder) -> None:
        columns = encoder.tensors[0]
        self._name, self._dtype, self._width = columns.spec.name, columns.dtype, encoder.width
        self._pack = struct.Struct(f"={encoder.width}{FLOAT_CODES[columns.spec.datatype]}").pack

    def row(self, values: Sequence[Any]) -> bytes:
        if None in values:
            values = [np.nan if value is None else value for value in values]
        # Rounds to float32 as numpy does, and raises for what rounds to infinity.
        return self._pack(*values)

    def split(self, rows: Tensors) -> list[bytes]:
        return [row.tobytes() for row in rows[self._name]]

    def join(self, rows: Sequence[bytes]) -> Tensors:
        joined = bytearray().join(rows)
        matrix = np.frombuffer(joined, dtype=self._dtype).reshape(len(rows), self._width)
        return {self._name: matrix}


class _TensorRows:
    """Rows of any tensors, as arrays of one row."""

    def __init__(self, encoder: FeatureEncoder) -> None:
        self._encoder = encoder

    def row(self, values: Sequence[Any]) -> Tensors:
        row = self._encoder.assemble(values, 1)
        if row is None:
            raise ValueError("a value is not one of its feature's")
        return row

    def split(self, rows: Tensors) -> list[Tensors]:
        return [select_rows(rows, slice(i, i + 1)) for i in range(row_count(rows))]

    def join(self, rows: Sequence[Tensors]) -> Tensors:
        if not rows:
            return self._encoder.no_rows()
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def row_form(encoder: FeatureEncoder) -> RowForm:
    """Return how the rows of ``encoder`` are kept."""
    return _MatrixRows(encoder) if encoder.is_matrix else _TensorRows(encoder)
