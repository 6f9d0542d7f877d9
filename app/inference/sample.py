"""Rows that wait for a shadow: a bounded sample of those that the stable version answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import log1p
from sys import getsizeof
from typing import Self
from weakref import ref

import numpy as np

from ..model.model import Model
from ..model.signature import Array, Tensors, row_count, select_rows

MAX_BYTES = 16 << 20
"""The most bytes of rows and answers that wait."""
_POINTER = 8
"""The bytes of a reference to a string."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A stable version and a candidate: their names, and the models while something else holds
    them.
    """

    model: str
    stable: str
    candidate: str
    _stable: ref[Model]
    _candidate: ref[Model]

    @classmethod
    def of(cls, stable: Model, candidate: Model) -> Self:
        return cls(stable.name, stable.version, candidate.version, ref(stable), ref(candidate))

    def is_of(self, stable: Model, candidate: Model) -> bool:
        """Return True if these are the models."""
        return self._stable() is stable and self._candidate() is candidate

    def models(self) -> tuple[Model, Model] | None:
        """Return the models; None if one of them was replaced."""
        stable, candidate = self._stable(), self._candidate()
        return None if stable is None or candidate is None else (stable, candidate)


class _Numbers:
    """Rows of an array of numbers, one after the other as bytes, of the datatype of the first.

    An object for each request would cost callers more than the prediction of its row, and so would
    numpy's assignment to a slice.
    """

    def __init__(self, like: Array) -> None:
        self._dtype, self._shape = like.dtype, (-1, *like.shape[1:])
        self._bytes = bytearray()

    def add(self, rows: Array) -> int:
        """Append ``rows``, and return the bytes that they take."""
        same = rows if rows.dtype is self._dtype else rows.astype(self._dtype)
        added = same.tobytes()
        self._bytes += added
        return len(added)

    @property
    def array(self) -> Array:
        return np.frombuffer(self._bytes, self._dtype).reshape(self._shape)


class _Strings:
    """Rows of an array of strings, which are not copied."""

    def __init__(self, like: Array) -> None:
        self._shape = (-1, *like.shape[1:])
        self._strings: list[str] = []

    def add(self, rows: Array) -> int:
        """Append ``rows``, and return the bytes that they take."""
        strings = rows.reshape(-1).tolist()
        self._strings += strings
        return sum(map(getsizeof, strings)) + _POINTER * len(strings)

    @property
    def array(self) -> Array:
        return np.array(self._strings, dtype=object).reshape(self._shape)


class _Columns:
    """Rows of several arrays, by their names."""

    def __init__(self, like: Tensors) -> None:
        self._buffers = {
            name: (_Strings if array.dtype.kind == "O" else _Numbers)(array)
            for name, array in like.items()
        }

    def add(self, rows: Tensors) -> int:
        """Append ``rows``, and return the bytes that they take."""
        return sum(buffer.add(rows[name]) for name, buffer in self._buffers.items())

    @property
    def arrays(self) -> Tensors:
        return {name: buffer.array for name, buffer in self._buffers.items()}


class Block:
    """Rows, with what the stable version answered to them (see `app.model.predictions`)."""

    def __init__(self, pair: Pair, rows: Tensors, answers: Tensors) -> None:
        self.pair = pair
        self._count = 0
        self._rows, self._answers = _Columns(rows), _Columns(answers)

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> Tensors:
        return self._rows.arrays

    @property
    def answers(self) -> Tensors:
        return self._answers.arrays

    def add(self, rows: Tensors, answers: Tensors) -> int:
        """Append rows, and return the bytes that they take."""
        self._count += row_count(rows)
        return self._rows.add(rows) + self._answers.add(answers)


class Sample:
    """A sample of the rows that are added, of ``max_rows`` and `MAX_BYTES` at most.

    Each row is in it with the same probability, at first ``share``, whenever it came and however
    large its batch. If there are too many, each row is removed with a probability of one half, and
    later rows are admitted at half the rate (adaptive Bernoulli sampling).
    """

    def __init__(self, max_rows: int, random: np.random.Generator, share: float = 1.0) -> None:
        self._max_rows = max_rows
        self._random = random
        self._bytes = 0
        self.rows = 0
        self.is_empty = True
        self._blocks: dict[Pair, Block] = {}
        self.dropped: Counter[Pair] = Counter()
        self._gap = 0
        self._set_share(share)

    @property
    def blocks(self) -> Iterable[Block]:
        return self._blocks.values()

    @property
    def offered(self) -> int:
        """The number of rows that were added, the dropped ones included."""
        return self.rows + self.dropped.total()

    def skip(self, pair: Pair) -> bool:
        """Drop one row if it is not in the sample; return whether it was dropped.

        The number of rows until the next one to keep is drawn at once: a draw for each row would
        cost callers more.
        """
        self.is_empty = False
        if not self._gap:
            return False
        self._gap -= 1
        self.dropped[pair] += 1
        return True

    def add(self, pair: Pair, rows: Tensors, answers: Tensors) -> None:
        """Add one row that `skip` did not drop, or those of several that are in the sample."""
        self.is_empty = False
        if row_count(rows) > 1:
            self._thin(pair, rows, answers, self._share)
        else:
            self._gap = self._new_gap()
            self._keep(pair, rows, answers)
        while self.rows > self._max_rows or self._bytes > MAX_BYTES:
            before, self._blocks, self.rows, self._bytes = self._blocks, {}, 0, 0
            self._set_share(self._share / 2)
            for block in before.values():
                self._thin(block.pair, block.rows, block.answers, 0.5)

    def _set_share(self, share: float) -> None:
        self._share = share
        # The whole part of an exponential variable of this mean is a geometric variable.
        self._mean_gap = 0.0 if share == 1 else -1 / log1p(-share)
        self._gap = self._new_gap()

    def _new_gap(self) -> int:
        return int(self._random.standard_exponential() * self._mean_gap) if self._mean_gap else 0

    def _thin(self, pair: Pair, rows: Tensors, answers: Tensors, share: float) -> None:
        """Keep each row with a probability of ``share``."""
        if share == 1:
            self._keep(pair, rows, answers)
            return
        count = row_count(rows)
        chosen = self._random.random(count) < share
        kept = int(np.count_nonzero(chosen))
        if kept:
            self._keep(pair, select_rows(rows, chosen), select_rows(answers, chosen))
        if kept < count:
            self.dropped[pair] += count - kept

    def _keep(self, pair: Pair, rows: Tensors, answers: Tensors) -> None:
        block = self._blocks.get(pair)
        if block is None:
            block = self._blocks[pair] = Block(pair, rows, answers)
        self._bytes += block.add(rows, answers)
        self.rows += row_count(rows)
