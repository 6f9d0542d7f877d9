"""Rows that wait for a shadow: a bounded sample of those that the stable version answered."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log1p
from typing import Self
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from ..model.model import Model

MAX_BYTES = 16 << 20
"""The most bytes of rows and answers that wait."""

Matrix = NDArray[np.float32]
Probabilities = Matrix | Sequence[Sequence[float]]
"""Those of one row are cheaper as they are than as an array."""


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


class Block:
    """Rows ``(n, width)`` with the stable version's probabilities ``(n, classes)``.

    Their bytes are appended to a buffer: an object for each request would cost callers more than
    the prediction of its row, and so would numpy's assignment to a slice.
    """

    def __init__(self, pair: Pair, width: int, classes: int) -> None:
        self.pair = pair
        self._width, self._classes = width, classes
        self._rows: array[float] = array("f")
        self._probabilities: array[float] = array("f")

    def __len__(self) -> int:
        return len(self._rows) // self._width

    @property
    def row_bytes(self) -> int:
        return 4 * (self._width + self._classes)

    @property
    def rows(self) -> Matrix:
        return np.frombuffer(self._rows, np.float32).reshape(-1, self._width)

    @property
    def probabilities(self) -> Matrix:
        return np.frombuffer(self._probabilities, np.float32).reshape(-1, self._classes)

    def add(self, rows: Matrix, probabilities: Probabilities) -> None:
        self._rows.frombytes(rows.tobytes())
        if isinstance(probabilities, np.ndarray):
            self._probabilities.frombytes(probabilities.tobytes())
        else:
            for each in probabilities:
                self._probabilities.extend(each)


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
        """How many rows were added, the dropped ones included."""
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

    def add(self, pair: Pair, rows: Matrix, probabilities: Probabilities) -> None:
        """Add one row that `skip` did not drop, or those of several that are in the sample."""
        self.is_empty = False
        if len(rows) > 1:
            self._thin(pair, rows, np.asarray(probabilities, np.float32), self._share)
        else:
            self._gap = self._new_gap()
            self._keep(pair, rows, probabilities)
        while self.rows > self._max_rows or self._bytes > MAX_BYTES:
            before, self._blocks, self.rows, self._bytes = self._blocks, {}, 0, 0
            self._set_share(self._share / 2)
            for block in before.values():
                self._thin(block.pair, block.rows, block.probabilities, 0.5)

    def _set_share(self, share: float) -> None:
        self._share = share
        # The whole part of an exponential variable of this mean is a geometric variable.
        self._mean_gap = 0.0 if share == 1 else -1 / log1p(-share)
        self._gap = self._new_gap()

    def _new_gap(self) -> int:
        return int(self._random.standard_exponential() * self._mean_gap) if self._mean_gap else 0

    def _thin(self, pair: Pair, rows: Matrix, probabilities: Matrix, share: float) -> None:
        """Keep each row with a probability of ``share``."""
        if share == 1:
            self._keep(pair, rows, probabilities)
            return
        chosen = self._random.random(len(rows)) < share
        kept = int(np.count_nonzero(chosen))
        if kept:
            self._keep(pair, rows[chosen], probabilities[chosen])
        if kept < len(rows):
            self.dropped[pair] += len(rows) - kept

    def _keep(self, pair: Pair, rows: Matrix, probabilities: Probabilities) -> None:
        block = self._blocks.get(pair)
        if block is None:
            block = self._blocks[pair] = Block(pair, rows.shape[1], len(probabilities[0]))
        block.add(rows, probabilities)
        self.rows += len(rows)
        self._bytes += len(rows) * block.row_bytes
