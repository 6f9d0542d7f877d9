"""How many rows a pass of a network should have: as many as make each of them cheaper.

A device that waits for its memory runs eight rows in little more than the time of one. A core that
is busy with convolutions takes eight times as long, and needs memory for eight: sharing a pass then
only makes the first of them wait for the last. Which it is depends on the network, the machine and
what else runs there, so it is measured while the network serves.
"""

from __future__ import annotations

_WORTH = 0.9
"""Twice the rows are worth it if each takes at most this share of the time."""
_TRIES = 8
"""Passes that are measured of a size, after the first, which is slower, before it is judged."""
_WEIGHT = 0.1
"""The least weight of a pass in the mean of its size: what else runs on the machine changes."""
_OUTLIER = 4.0
"""A pass counts as at most this many times the mean."""
_PATIENCE, _MOST_PATIENCE = 512, 4096
"""Passes before a size that was not worth it is tried again, at first and at most."""


class PassSize:
    """The number of ``rows`` that a pass may have now, at most ``max_rows``.

    It begins with one, and is doubled while that makes a row cheaper. It has one owner at a time,
    which runs a pass and then says how long it took.
    """

    def __init__(self, max_rows: int) -> None:
        self.rows = 1
        self._max_rows = max_rows
        self._costs: dict[int, _Cost] = {}  # of a row in seconds, by the size of the pass
        self._patience = _PATIENCE
        self._resting = 0

    def learn(self, rows: int, seconds: float) -> None:
        """Learn that a pass of so many ``rows`` took so many ``seconds``."""
        size = 1 << (rows - 1).bit_length()
        cost = self._costs.setdefault(size, _Cost())
        cost.add(seconds / rows)
        if size != self.rows or cost.count <= _TRIES:
            return
        half = self._costs.get(size // 2)
        if half is not None and cost.mean > _WORTH * half.mean:
            self.rows = size // 2
            del self._costs[size]
            self._resting, self._patience = self._patience, min(2 * self._patience, _MOST_PATIENCE)
        elif self._resting:
            self._resting -= 1
        else:
            self.rows = min(2 * size, self._max_rows)


class _Cost:
    """The ``mean`` of what a row took, in seconds, in ``count`` passes and the first before."""

    __slots__ = ("count", "mean")

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0

    def add(self, seconds: float) -> None:
        if self.count <= 1:
            self.mean = seconds
        else:
            bounded = min(seconds, self.mean * _OUTLIER)
            self.mean += (bounded - self.mean) * max(_WEIGHT, 1 / self.count)
        self.count += 1
