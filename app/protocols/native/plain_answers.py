"""Predictions encoded as JSON in parts, as objects of Python: for every task but the commonest.

As `EncodedRows` in what it promises: a part is a few milliseconds of work, and only one is in
memory, however large the response is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from typing import Any, Protocol, Self

import orjson
from msgspec.structs import replace

from ...model.predictions import Batch, Prediction

PART_VALUES = 1 << 14
"""The number of values that become one part."""
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


class RowWriter(Protocol):
    """The parts of the JSON of one prediction, by its schema; see `AnswerSchema`."""

    @property
    def numbers_member(self) -> str: ...

    def document(self, prediction: Any) -> dict[str, Any]: ...
    def before(self, prediction: Any) -> dict[str, Any]: ...
    def numbers(self, prediction: Any) -> Any: ...
    def keys(self, prediction: Any) -> Sequence[str] | None: ...
    def after(self, prediction: Any) -> dict[str, Any]: ...


class PlainRows:
    """The predictions of rows as JSON objects separated by commas, between ``begin`` and ``end``.

    Iterating encodes the ``len()`` parts one by one. ``predictions`` returns those from one row up
    to another of the ``count``, whose numbers are of ``shape`` each, and ``writer`` writes one. A
    row of very many numbers is cut between them (those of a higher rank along their first
    dimension). ``nbytes`` are the bytes of memory that are held until the last part is encoded.
    """

    def __init__(
        self,
        writer: RowWriter,
        predictions: Callable[[int, int], Iterable[Prediction]],
        count: int,
        shape: tuple[int, ...],
        *,
        begin: bytes = b"",
        end: bytes = b"\n",
        nbytes: int = 0,
    ) -> None:
        self._writer, self._predictions = writer, predictions
        self._begin, self._end, self.nbytes = begin, end, nbytes
        length, inner = (shape[0], prod(shape[1:])) if shape else (1, 1)
        self._rows = range(0, count, max(1, PART_VALUES // max(1, length * inner)))
        self._columns = range(0, length, max(1, PART_VALUES // max(1, inner)))

    @classmethod
    def of_batch(cls, writer: RowWriter, batch: Batch, *, begin: bytes, end: bytes) -> Self:
        """Return those of all rows of ``batch``, without the outputs that it doesn't show."""
        shown = replace(batch, outputs={})
        return cls(
            writer,
            shown.rows,
            len(batch),
            batch.answers.shape[1:],
            begin=begin,
            end=end,
            nbytes=shown.nbytes,
        )

    def __len__(self) -> int:
        return max(1, len(self._rows) * max(1, len(self._columns)))

    def __iter__(self) -> Iterator[bytes]:
        before, last = self._begin, len(self)
        number = 0
        for number, part in enumerate(self._parts(), 1):
            yield b"".join((before, part, self._end if number == last else b""))
            before = b""
        if not number:  # there is no row
            yield before + self._end

    def _parts(self) -> Iterator[bytes]:
        for top in self._rows:
            predictions = self._predictions(top, top + self._rows.step)
            comma = b"," if top else b""
            if len(self._columns) > 1:
                (prediction,) = predictions
                yield from self._parts_of_row(prediction, comma)
            else:
                rows = [*map(self._writer.document, predictions)]
                yield comma + orjson.dumps(rows, option=_NUMPY)[1:-1]

    def _parts_of_row(self, prediction: Prediction, comma: bytes) -> Iterator[bytes]:
        """Yield one row that is too long for one part."""
        writer = self._writer
        numbers, keys = writer.numbers(prediction), writer.keys(prediction)
        opening, closing = (b"[", b"]") if keys is None else (b"{", b"}")
        before = _members(writer.before(prediction))
        head = b"%b{%b%b%b:%b" % (
            comma,
            before,
            b"," if before else b"",
            orjson.dumps(writer.numbers_member),
            opening,
        )
        tail = b"%b,%b}" % (closing, _members(writer.after(prediction)))
        for left in self._columns:
            some = slice(left, left + self._columns.step)
            values = numbers[some]
            if keys is not None:
                values = dict(zip(keys[some], values, strict=True))
            is_last = some.stop >= self._columns.stop
            yield b"".join((head, _members(values), tail if is_last else b""))
            head = b","


def _members(values: Any) -> bytes:
    """Return the JSON of an object or array without its brackets."""
    return orjson.dumps(values, option=_NUMPY)[1:-1]
