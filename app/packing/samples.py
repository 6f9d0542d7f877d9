"""Samples for packing: rows of a CSV file, by the names of the features.

They become the golden samples of a bundle, and show the ranges of the features.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from ..documents.suggestions import closest, difference
from ..documents.text import NotUtf8, check_encoding, find_fault
from ..model.errors import BundleError
from ..model.features import FLOAT32_OVERFLOW, Feature

GOLDEN_ROWS = 20
"""The most rows of the file that become golden samples."""


_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""What spreadsheets write into a CSV instead of commas, for example if numbers have decimal
commas."""


@dataclass(frozen=True, slots=True)
class Samples:
    """The rows of a CSV file: ``matrix`` is float32 ``(rows, features)``, NaN for null.

    ``lines`` are the lines of the file on which the rows end, counted from 1.
    """

    matrix: NDArray[np.float32]
    lines: tuple[int, ...]

    def spread(self, rows: int = GOLDEN_ROWS) -> Samples:
        """Return at most ``rows`` of them, spread evenly over the file."""
        count = len(self.lines)
        chosen = np.unique(np.linspace(0, count - 1, min(rows, count)).round().astype(int))
        return Samples(self.matrix[chosen], tuple(self.lines[index] for index in chosen))


def read_samples(path: Path, features: Sequence[Feature]) -> Samples:
    """Read the columns of ``features`` from a CSV file with a header; ignore others.

    An empty cell is null. Raises `BundleError`, which names the line and the column.
    """
    try:
        with path.open("rb") as file:
            check_encoding(file.peek())
            text = TextIOWrapper(file, encoding="utf-8-sig", newline="")
            try:
                return _read(csv.reader(text), features)
            except UnicodeDecodeError:
                raise find_fault(file) from None
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    except NotUtf8 as error:
        raise BundleError(f"{path} {error}") from None
    except csv.Error as error:
        raise BundleError(f"{path} is not CSV: {error}.") from error
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None


def with_ranges(features: Sequence[Feature], samples: Samples) -> tuple[Feature, ...]:
    """Return ``features`` with missing ranges and examples taken from the samples.

    The example is the median. Raises `BundleError` if a given bound and one from the samples leave
    no range.
    """
    return tuple(
        _with_range(feature, samples.matrix[:, index]) for index, feature in enumerate(features)
    )


def _with_range(feature: Feature, column: NDArray[np.float32]) -> Feature:
    seen = column[~np.isnan(column)]
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
    example = _shortest(np.median(seen)) if feature.example is None else feature.example
    return replace(feature, minimum=low, maximum=high, example=example)


def _shortest(value: np.float32) -> float:
    """Return a float32 as the shortest number that rounds to it: 0.1, not 0.10000000149."""
    return float(str(value))


def _read(reader: Iterator[list[str]], features: Sequence[Feature]) -> Samples:
    header = [name.strip() for name in next(reader, [])]
    if not any(header):
        raise BundleError("the file is empty; its first line must name the columns.")
    columns = [_column(header, feature.name) for feature in features]
    plan = tuple(zip(columns, features, strict=True))
    values, lines = array("d"), array("q")
    for row in reader:
        line: int = reader.line_num  # type: ignore[attr-defined]
        if not row:
            continue  # a blank line
        if len(row) != len(header):
            raise BundleError(
                f"line {line} has {len(row)} cells, but the header has {len(header)} columns."
            )
        for column, feature in plan:
            values.append(_value(row[column], feature, line))
        lines.append(line)
    if not lines:
        raise BundleError("there is no row below the header; at least one sample is required.")
    matrix = np.frombuffer(values, dtype=np.float64).reshape(len(lines), len(features))
    return Samples(matrix.astype(np.float32), tuple(lines))


def _column(header: Sequence[str], name: str) -> int:
    found = [index for index, column in enumerate(header) if column == name]
    if len(found) > 1:
        raise BundleError(f"the column {name!r} appears {len(found)} times.")
    if not found:
        for separator, called in _OTHER_SEPARATORS.items():
            if len(header) == 1 and separator in header[0]:
                raise BundleError(
                    f"its columns are separated by {called}; save it with commas as separators and "
                    "points in its numbers."
                )
        close = closest(name, header)
        hint = f" (is it {close!r}{difference(name, close)}?)" if close else ""
        raise BundleError(
            f"the column {name!r} is missing{hint}; the first line must name every feature."
        )
    return found[0]


def _value(cell: str, feature: Feature, line: int) -> float:
    text = cell.strip()
    where = f"line {line}, column {feature.name!r}"
    if not text:
        if not feature.nullable:
            raise BundleError(
                f"{where}: is blank; only a feature with nullable = true may be null."
            )
        return float("nan")
    try:
        if "_" in text:  # Python allows it between digits, a CSV doesn't
            raise ValueError
        value = float(text)
    except ValueError:
        raise BundleError(
            f"{where}: must be a number, not {cell[:40]!r}; leave it blank for null."
        ) from None
    if not abs(value) < FLOAT32_OVERFLOW:  # written so that NaN fails too
        raise BundleError(
            f"{where}: must be finite as a 32-bit float, not {cell[:40]!r}; leave it blank for "
            "null."
        )
    return value
