"""Samples for packing: rows of a CSV file, by the names of the features.

They become the golden samples of a bundle, and show the ranges of the features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from ..model.columns import is_nan
from ..model.encoder import FeatureEncoder
from ..model.errors import BundleError, InvalidFeatures
from ..model.features import FLOAT32_OVERFLOW, Feature
from ..model.signature import Array, Tensors, select_rows
from .faults import Faults
from .tables import Table, open_table

_PART_VALUES = 100_000
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}

GOLDEN_ROWS = 20
"""The most rows of the file that become golden samples."""


def spread(count: int, most: int) -> Array:
    """Return the places of at most ``most`` of ``count`` rows, spread evenly over them."""
    places: Array = np.linspace(0, count - 1, min(most, count)).round().astype(int)
    return np.unique(places)


@dataclass(frozen=True, slots=True)
class Samples:
    """Rows as a network takes them; ``lines`` are the lines of the file on which they end, counted
    from 1.
    """

    rows: Tensors
    lines: tuple[int, ...]

    def spread(self, most: int = GOLDEN_ROWS) -> Samples:
        """Return at most ``most`` rows, spread evenly over the file."""
        chosen = spread(len(self.lines), most)
        rows = select_rows(self.rows, chosen)
        return Samples(rows, tuple(self.lines[index] for index in chosen))


def read_samples(path: Path, encoder: FeatureEncoder) -> Samples:
    """Read the columns of the features from a CSV file with a header; ignore others.

    An empty cell is null. Raises `BundleError`, which names the line and the column.
    """
    with open_table(path) as table:
        return _read(table, encoder)


def column_names(path: Path) -> list[str]:
    """Return the names of the columns of a CSV file. Raises `BundleError`."""
    with open_table(path) as table:
        return list(table.header)


def read_column(path: Path, name: str) -> list[str]:
    """Return the cells of one column of a CSV file. Raises `BundleError`."""
    with open_table(path) as table:
        column = table.column(name)
        return [cells[column].strip() for _, cells in table.rows()]


def with_ranges(encoder: FeatureEncoder, rows: Tensors) -> tuple[Feature, ...]:
    """Return the features with missing ranges and examples taken from ``rows``.

    The example is the median, or the most frequent value. Raises `BundleError` if a given bound and
    one from the samples leave no range.
    """
    described = {
        feature.name: _with_range(feature, _column_of(rows[columns.spec.name], index))
        for columns in encoder.tensors
        for index, feature in enumerate(columns.features)
    }
    return tuple(described[feature.name] for feature in encoder.features)


def _column_of(array: Array, index: int) -> Array:
    column: Array = array.reshape(len(array), -1)[:, index]
    return column


def _with_range(feature: Feature, column: Array) -> Feature:
    if feature.kind in ("category", "boolean"):
        return _with_example(feature, column)
    seen = column if column.dtype.kind != "f" else column[~np.isnan(column)]
    if feature.null_as is not None:
        seen = seen[seen != feature.null_as]
    if not len(seen):
        return feature
    low = _shortest(seen.min()) if feature.minimum is None else feature.minimum
    high = _shortest(seen.max()) if feature.maximum is None else feature.maximum
    if low > high:
        raise BundleError(
            f"feature {feature.name!r}: every sample is "
            f"{'above the maximum' if feature.minimum is None else 'below the minimum'} in the "
            "features file; give both minimum and maximum, or neither."
        )
    example = feature.example
    if example is None:
        example = _median(seen)
    if feature.kind == "integer":
        low, high, example = int(low), int(high), int(example)
    return replace(feature, minimum=low, maximum=high, example=example)


def _median(seen: Array) -> float:
    """Return the median as people would write it: of two in the middle, the mean of both as they
    are written.
    """
    ordered = np.sort(seen)
    low, high = ordered[(len(seen) - 1) // 2], ordered[len(seen) // 2]
    return float(f"{(_shortest(low) + _shortest(high)) / 2:.12g}")


def _with_example(feature: Feature, column: Array) -> Feature:
    """Return a feature with its most frequent value as the example."""
    if feature.example is not None:
        return feature
    seen = [
        value
        for value in column.tolist()
        if not is_nan(value) and (feature.null_as is None or value != feature.null_as)
    ]
    if not seen:
        return feature
    ((value, _),) = Counter(seen).most_common(1)
    if feature.kind == "boolean":
        return replace(feature, example=bool(value))
    is_code = not isinstance(value, str)
    return replace(feature, example=feature.categories[int(value)] if is_code else value)


def _shortest(value: np.generic) -> float:
    """Return a float32 as the shortest number that rounds to it: 0.1, not 0.10000000149."""
    return float(str(value))


def _read(table: Table, encoder: FeatureEncoder) -> Samples:
    table.check_header()
    faults = Faults()
    found = [faults.attempt(table.column, name) for name in encoder.names]
    faults.check()
    columns = [index for index in found if index is not None]
    plan = tuple(zip(columns, encoder.features, strict=True))
    parts: list[Tensors] = []
    values: list[Any] = []
    lines: list[int] = []
    done = 0
    for line, row in table.rows():
        values += [_value(row[column], feature, line) for column, feature in plan]
        lines.append(line)
        if len(values) >= _PART_VALUES:  # only so many values are Python objects at a time
            parts.append(_rows(values, lines[done:], encoder))
            values, done = [], len(lines)
    if values:
        parts.append(_rows(values, lines[done:], encoder))
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Samples(rows, tuple(lines))


def _rows(values: list[Any], lines: Sequence[int], encoder: FeatureEncoder) -> Tensors:
    """Return the rows of ``values``. Raises `BundleError` for one that isn't its feature's."""
    rows = encoder.assemble(values, len(lines))
    if rows is not None:
        return rows
    samples = [
        dict(zip(encoder.names, values[start : start + encoder.width], strict=True))
        for start in range(0, len(values), encoder.width)
    ]
    try:
        return encoder.encode_batch(samples)
    except InvalidFeatures as error:
        row, name = error.faults[0].path[:2]
        raise BundleError(
            f"line {lines[int(row)]}, column {name!r}: {error.faults[0].detail}, as "
            f"{samples[int(row)][str(name)]!r:.40} is not."
        ) from None


def _value(cell: str, feature: Feature, line: int) -> Any:
    text = cell.strip()
    where = f"line {line}, column {feature.name!r}"
    if not text:
        if not feature.nullable:
            raise BundleError(
                f"{where}: is blank; only a feature with nullable = true may be null."
            )
        return None
    if feature.kind == "category":
        return cell
    if feature.kind == "boolean":
        value = _BOOLEANS.get(text.lower())
        if value is None:
            raise BundleError(f"{where}: must be true or false (or 1 or 0), not {cell[:40]!r}.")
        return value
    number = _number(text)
    if number is None:
        raise BundleError(
            f"{where}: must be a number, not {cell[:40]!r}; leave it blank for null. (A feature "
            "of strings lists its categories in the features file.)"
        )
    if not abs(number) < FLOAT32_OVERFLOW:  # written so that NaN fails too
        raise BundleError(
            f"{where}: must be finite as a 32-bit float, not {cell[:40]!r}; leave it blank for "
            "null."
        )
    return number


def _number(text: str) -> float | None:
    """Return the number that ``text`` is, an integer exactly; None if it is none."""
    if "_" in text:  # Python allows it between digits, a CSV doesn't
        return None
    try:
        return int(text) if text.lstrip("+-").isdecimal() and len(text) < 30 else float(text)
    except ValueError:
        return None
