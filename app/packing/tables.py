"""CSV files of samples: a header that names the columns, and rows with as many cells."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from ..documents.suggestions import closest, difference
from ..documents.text import NotUtf8, check_encoding, find_fault
from ..model.errors import BundleError

_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""Separators that spreadsheets write into a CSV instead of commas, for example if numbers have
decimal commas."""


class Table:
    """A table that is being read: its ``header``, and then its rows, once."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.header = tuple(name.strip() for name in next(reader, []))
        self._places: dict[str, list[int]] = {}  # there may be tens of thousands of columns
        for index, column in enumerate(self.header):
            self._places.setdefault(column, []).append(index)

    def check_header(self) -> None:
        """Raise `BundleError` unless the first line has a name."""
        if not any(self.header):
            raise BundleError("the file is empty; its first line must name the columns.")

    def column(self, name: str) -> int:
        """Return the position of the column ``name``. Raises `BundleError` unless there is one."""
        found = self._places.get(name, [])
        if len(found) > 1:
            raise BundleError(f"the column {name!r} appears {len(found)} times.")
        if found:
            return found[0]
        for separator, called in _OTHER_SEPARATORS.items():
            if len(self.header) == 1 and separator in self.header[0]:
                raise BundleError(
                    f"its columns are separated by {called}; save it with commas as separators and "
                    "points in its numbers."
                )
        close = closest(name, self.header)
        hint = f" (is it {close!r}{difference(name, close)}?)" if close else ""
        raise BundleError(
            f"the column {name!r} is missing{hint}; the first line must name every column that is "
            "needed."
        )

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line on which each row ends, counted from 1, and its cells.

        Blank lines are left out. Raises `BundleError` for a row of another length than the header,
        and at the end if there was none.
        """
        is_empty = True
        for row in self._reader:
            if not row:
                continue
            line: int = self._reader.line_num
            if len(row) != len(self.header):
                raise BundleError(
                    f"line {line} has {len(row)} cells, but the header has {len(self.header)} "
                    "columns."
                )
            is_empty = False
            yield line, row
        if is_empty:
            raise BundleError("there is no row below the header; at least one sample is required.")


@contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """Open a CSV file in UTF-8, with or without a byte order mark.

    Raises `BundleError`, which names the file, for what can't be read, and for those that are
    raised while it is open.
    """
    try:
        with path.open("rb") as file:
            check_encoding(file.peek())
            text = TextIOWrapper(file, encoding="utf-8-sig", newline="")
            try:
                yield Table(csv.reader(text))
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
