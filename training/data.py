"""The data: a CSV of customers, read and checked once, as arrays for everything behind.

Whatever is wrong with a file is said in one sentence that names columns and rows; nothing here
knows of networks.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.documents.text import NotUtf8, check_encoding, find_fault
from app.model.features import Feature

IDENTIFIER = "customer_id"
"""May be in the file and is never a feature: who a customer is says nothing of the next one."""

LABEL = "responded"
CLASSES = ("no_response", "response")

FEATURES = (
    Feature("age", "Age of the customer.", "years"),
    Feature("income", "Yearly income of the household.", "currency units a year", nullable=True),
    Feature("tenure_days", "Time since the customer enrolled.", "days"),
    Feature(
        "num_purchases",
        "Purchases over two years: web, catalogue and store together.",
        "purchases",
    ),
    Feature(
        "avg_transaction_value",
        "Mean amount spent in a purchase; null for a customer without any.",
        "currency units",
        nullable=True,
    ),
    Feature("days_since_last_purchase", "Time since the last purchase.", "days"),
)
"""What the network sees, in its order; ranges and examples come from the data."""

FEATURE_NAMES = tuple(feature.name for feature in FEATURES)

_NAMES_SHOWN = 10


class DataError(Exception):
    """The data can't be trained on; the message is one sentence for whoever brought it."""


@dataclass(frozen=True, slots=True)
class Data:
    """Customers as arrays of ``n`` rows.

    ``features`` is raw float32 ``(n, len(FEATURES))`` with NaN for a blank; ``labels`` is int64
    ``(n,)`` of 0 and 1; ``groups`` is int64 ``(n,)``, equal where all features are equal.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def read_data(path: Path) -> Data:
    """Read and check the CSV at ``path``. Raises `DataError`."""
    table = _read_table(path)
    _check_columns(table.columns.tolist())
    if table.empty:
        raise DataError(f"{path} has a header and no rows.")
    columns = [_numbers(table[f.name], nullable=f.nullable) for f in FEATURES]
    features = np.column_stack(columns).astype(np.float32)
    labels = _labels(table[LABEL])
    return Data(features, labels, group_identical(features))


def group_identical(features: NDArray[np.float32]) -> NDArray[np.int64]:
    """Number the rows of ``features`` ``(n, d)`` so that equal rows, and only they, are equal.

    Two blanks count as equal.
    """
    # NaN differs from itself; infinity can't be in the data and may stand for it.
    comparable = np.where(np.isnan(features), np.inf, features) + 0.0  # and -0.0 becomes 0.0
    _, groups = np.unique(comparable, axis=0, return_inverse=True)
    return groups.reshape(-1).astype(np.int64)


def _read_table(path: Path) -> pd.DataFrame:
    """Read every cell as text: what pandas would guess, it could guess wrong in silence."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            check_encoding(file.peek())
            # A row longer than the header is otherwise cut, with no more than this warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            try:
                table = pd.read_csv(
                    file, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig"
                )
            except UnicodeDecodeError:
                raise find_fault(file) from None
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}.") from error
    except NotUtf8 as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: it {error}") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{path} is empty.") from None
    except pd.errors.ParserWarning:
        raise DataError(f"{path} has rows with more cells than the header has columns.") from None
    except pd.errors.ParserError as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {str(error).strip()}.") from error
    return table.fillna("").rename(columns=str.strip)


def _check_columns(columns: Sequence[str]) -> None:
    wanted = (*FEATURE_NAMES, LABEL)
    missing = [name for name in wanted if name not in columns]
    unexpected = [name for name in columns if name not in (*wanted, IDENTIFIER)]
    faults = [
        f"{kind}: {_listed(names)}"
        for kind, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    if faults:
        raise DataError(f"The columns are wrong ({'; '.join(faults)}).")


def _numbers(column: pd.Series, *, nullable: bool) -> NDArray[np.float64]:
    """Return the numbers of a column of text, NaN where it is blank."""
    text = column.str.strip()
    blank = (text == "").to_numpy()
    values: NDArray[np.float64] = pd.to_numeric(text, errors="coerce").to_numpy(np.float64)
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32))
    _refuse(column, ~finite & ~blank, "is not a finite number")
    if not nullable:
        _refuse(column, blank, "is blank")
    elif blank.all():
        raise DataError(f"Column {column.name!r} has no value in any row.")
    return values


def _labels(column: pd.Series) -> NDArray[np.int64]:
    values = _numbers(column, nullable=False)
    _refuse(column, ~np.isin(values, (0.0, 1.0)), "is neither 0 nor 1")
    labels = values.astype(np.int64)
    if len(np.unique(labels)) < len(CLASSES):
        raise DataError(f"Column {LABEL!r} is {labels[0]} in every row; both 0 and 1 are needed.")
    return labels


def _refuse(column: pd.Series, faulty: NDArray[np.bool_], problem: str) -> None:
    """Raise `DataError` naming the first faulty cell, and how many more there are."""
    rows = np.flatnonzero(faulty)
    if not len(rows):
        return
    cell = repr(column.iloc[rows[0]][:40])
    more = f", and so are {len(rows) - 1} more cells of that column" if len(rows) > 1 else ""
    raise DataError(f"Column {column.name!r}, row {rows[0] + 1}: {cell} {problem}{more}.")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(repr(name[:80]) for name in names[:_NAMES_SHOWN]) + more
