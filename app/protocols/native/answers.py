"""Predictions encoded as JSON, in parts, without a Python object for each number.

orjson writes the digits of an array of float32. numpy copies each number's digits into a slot of
fixed width after its key, between the beginning and the end of its row, and one `bytes.translate`
deletes the padding. A part is a few milliseconds of work, so that other requests can be served in
between, and takes less than 16 MiB, however large the response is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

PART_BYTES = 5 << 19
"""The bytes of slots that become one part: 2.5 MiB, of which the padding is about a third."""
SLOT_BYTES = 16
"""The longest float32 that orjson writes, such as -1961229700000.0, and any index of a class."""

_PADDING = b"\0"
"""No byte of JSON, where a control character is escaped."""
_COMMA = ord(",")
_KEY_BEGIN, _KEY_END = b',"class_', b'":'
_SLOT = np.dtype(f"V{SLOT_BYTES}")
_KEPT = np.tril(np.full((SLOT_BYTES + 1, SLOT_BYTES), 0xFF, dtype=np.uint8), -1).view(_SLOT)[:, 0]
"""By the length of a number, which bits of its slot are its own."""


def json_time(timestamp: datetime) -> str:
    """Return ``timestamp`` in ISO 8601, always with microseconds."""
    return timestamp.isoformat(timespec="microseconds")


def orjson_time(timestamp: datetime) -> datetime | str:
    """Return what orjson writes as `json_time`: sooner by itself, but without microseconds of 0."""
    return timestamp if timestamp.microsecond else json_time(timestamp)


class EncodedRows:
    """The predictions of rows as JSON objects separated by commas, between ``begin`` and ``end``.

    Iterating encodes the ``len()`` parts one by one. ``indices`` ``(n,)`` are the predicted
    classes, ``labels`` maps them to names, and ``probabilities`` is float32 ``(n, classes)`` and
    finite: once the first part is encoded, no other can fail because of its values.
    """

    def __init__(
        self,
        indices: NDArray[np.intp],
        probabilities: NDArray[np.float32],
        labels: Sequence[str] | Mapping[int, str],
        *,
        version: str,
        timestamp: datetime,
        begin: bytes,
        end: bytes,
    ) -> None:
        self._probabilities = probabilities
        self._begin, self._end = begin, end
        self._heads, self._head_of_row = _heads(indices, labels)
        self._tail = _as_bytes(
            b'},"model_version":%b,"timestamp":"%b"}'
            % (orjson.dumps(version), json_time(timestamp).encode())
        )
        rows, width = probabilities.shape
        slot = len(_KEY_BEGIN) + len(str(width - 1)) + len(_KEY_END) + SLOT_BYTES
        row = self._heads.itemsize + width * slot + self._tail.itemsize
        self._rows = range(0, rows, max(1, PART_BYTES // row))
        self._columns = range(0, width, PART_BYTES // slot)  # a row may be too long for one part

    def __len__(self) -> int:
        return max(1, len(self._rows) * len(self._columns))

    @property
    def nbytes(self) -> int:
        """The bytes of memory that it holds until the last part is encoded."""
        return self._probabilities.nbytes + self._head_of_row.nbytes + self._heads.nbytes

    def __iter__(self) -> Iterator[bytes]:
        parts = (self._part(top, left) for top in self._rows for left in self._columns)
        begin = self._begin
        for _ in range(len(self) - 1):
            yield begin + next(parts)
            begin = b""
        yield b"".join((begin, next(parts, b""), self._end))

    def _part(self, top: int, left: int) -> bytearray:
        """Return the encoded values of some rows from the column ``left`` on.

        Each row's beginning is included with its first values, and its end with its last.
        """
        some = slice(top, top + self._rows.step)
        right = min(left + self._columns.step, self._columns.stop)
        numbers = self._probabilities[some, left:right]
        keys = _keys(left, right)
        fields: list[tuple[Any, ...]] = [
            ("values", [("key", keys.dtype), ("digits", _SLOT)], (right - left,))
        ]
        if left == 0:
            fields.insert(0, ("head", self._heads.dtype))
        if right == self._columns.stop:
            fields.append(("tail", self._tail.dtype))
        layout = np.dtype(fields)
        buffer = bytearray(len(numbers) * layout.itemsize)
        table = np.frombuffer(buffer, dtype=layout)
        table["values"]["key"] = keys
        table["values"]["digits"] = _digits(numbers.reshape(-1)).reshape(numbers.shape)
        if left == 0:
            table["head"] = self._heads[self._head_of_row[some]]
        if right == self._columns.stop:
            table["tail"] = self._tail
        if top == left == 0:
            buffer[0] = 0  # no comma before the first row
        return buffer.translate(None, _PADDING)


def _digits(numbers: NDArray[Any]) -> NDArray[np.void]:
    """Return the digits of each number of an array ``(n,)`` in JSON, in padded slots."""
    written = orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)
    text = np.frombuffer(written + bytes(SLOT_BYTES), dtype=np.uint8)
    end = len(written) - 1  # where the bracket closes
    bounds = np.empty(len(numbers) + 1, dtype=np.intp)  # the bytes before and behind each number
    bounds[0], bounds[1:-1], bounds[-1] = 0, np.flatnonzero(text[:end] == _COMMA), end
    starts = bounds[:-1] + 1
    from_each = np.ndarray(end, dtype=_SLOT, buffer=text, strides=(1,))
    slots = from_each[starts]
    bits = slots.view(np.uint64)
    bits &= _KEPT[bounds[1:] - starts].view(np.uint64)  # raises for a number longer than a slot
    return slots


def _heads(
    indices: NDArray[np.intp], labels: Sequence[str] | Mapping[int, str]
) -> tuple[NDArray[np.void], NDArray[np.intp]]:
    """Return the beginning of a row for each predicted class, and the index of each row's."""
    is_used = np.bincount(indices) > 0
    heads = [
        b',{"prediction":%d,"label":%b,"probabilities":{' % (index, orjson.dumps(labels[index]))
        for index in np.flatnonzero(is_used).tolist()
    ]
    return _as_bytes(*heads), (np.cumsum(is_used) - 1)[indices]


@lru_cache(maxsize=8)
def _keys(left: int, right: int) -> NDArray[np.void]:
    """Return the keys of the classes from ``left`` to ``right``, each with a comma in front."""
    longest = len(str(right - 1))
    digits = _digits(np.arange(left, right)).view(np.uint8).reshape(-1, SLOT_BYTES)
    keys = np.hstack(
        [
            np.tile(np.frombuffer(_KEY_BEGIN, dtype=np.uint8), (right - left, 1)),
            digits[:, :longest],
            np.tile(np.frombuffer(_KEY_END, dtype=np.uint8), (right - left, 1)),
        ]
    )
    if left == 0:
        keys[0, 0] = 0  # the first of a row has none
    return keys.view(f"V{keys.shape[1]}")[:, 0]


def _as_bytes(*texts: bytes) -> NDArray[np.void]:
    """Return texts as an array, the shorter ones padded."""
    array = np.array(texts)
    return array.view(f"V{array.itemsize}")
