"""Figures: what was measured, round by round, and how two series of them compare.

A ratio is taken within a round, between slots that ran one after the other; what is told of it is
the median over the rounds and the range, so a disturbed round shows and doesn't decide.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

Series = dict[str, list[float]]
"""What was measured of one server in one part: ``{figure: [a value a round]}``."""
Figures = dict[str, dict[str, Series]]
"""Everything: ``{part: {server: series}}``."""


@dataclass(frozen=True)
class Spread:
    """A median, and the lowest and highest value beside it."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


def ratios(of: Sequence[float], to: Sequence[float]) -> list[float]:
    """Divide round by round."""
    return [one / other for one, other in zip(of, to, strict=True)]


def rounds_of(items: Sequence[T], rounds: int) -> Iterator[tuple[T, ...]]:
    """Return the items of each round, which begins with another each time: ABC, BCA, CAB."""
    for number in range(rounds):
        first = number % len(items)
        yield (*items[first:], *items[:first])


def interleaved(items: Sequence[T], rounds: int) -> Iterator[T]:
    """Return the items of all rounds, one after the other."""
    for in_turn in rounds_of(items, rounds):
        yield from in_turn
