"""Rounds are interleaved, and ratios taken within them."""

from __future__ import annotations

import pytest

from benchmarks.figures import Spread, interleaved, ratios, rounds_of


def test_each_round_begins_with_another_server() -> None:
    assert list(map("".join, rounds_of("ABC", 4))) == ["ABC", "BCA", "CAB", "ABC"]
    assert "".join(interleaved("ABC", 4)) == "ABCBCACABABC"


def test_a_ratio_is_taken_within_its_round() -> None:
    assert ratios([10, 40, 90], [5, 10, 30]) == [2, 4, 3]


def test_series_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios([1, 2], [1])


def test_a_spread_is_the_median_between_the_lowest_and_the_highest() -> None:
    assert Spread.of([9, 1, 4]) == Spread(median=4, lowest=1, highest=9)
