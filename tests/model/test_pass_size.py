"""A pass has as many rows as make each of them cheaper."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from app.model.pass_size import PassSize

MOST = 64


def after(size: PassSize, seconds: Callable[[int], float], passes: int) -> list[int]:
    """Return how many rows each of so many passes had, of a network that takes ``seconds`` for some
    rows, while more wait than a pass may have.
    """
    had = []
    for _ in range(passes):
        had.append(size.rows)
        size.learn(size.rows, seconds(size.rows))
    return had


def test_rows_that_cost_the_network_nothing_share_a_pass_soon() -> None:
    had = after(PassSize(MOST), lambda rows: 0.02, 80)
    assert had[0] == 1
    assert had[-1] == MOST
    assert had == sorted(had)


def test_rows_that_are_not_cheaper_together_run_alone() -> None:
    had = after(PassSize(MOST), lambda rows: 0.02 * rows, 1000)
    assert set(had) == {1, 2}
    assert had[-500:].count(2) < 50


def test_the_size_from_which_nothing_is_won_is_found() -> None:
    """Eight rows in the time of one, and no more."""
    had = after(PassSize(MOST), lambda rows: 0.02 * max(1, rows / 8), 1000)
    assert max(had) == 16
    assert had[-500:].count(8) > 450


@pytest.mark.parametrize("seed", range(5))
def test_a_busy_machine_changes_little(seed: int) -> None:
    chance = random.Random(seed)

    def noisy(seconds: float) -> float:
        return seconds * chance.choice([1, 1.1, 1.2, 1.3, 3])

    had = after(PassSize(MOST), lambda rows: noisy(0.02 * rows), 9000)
    assert sum(had[-1000:]) / 1000 < 2
    had = after(PassSize(MOST), lambda rows: noisy(0.02 + 0.001 * rows), 9000)
    assert sum(had[-1000:]) / 1000 > 4


def test_a_size_is_tried_again_when_the_machine_has_changed() -> None:
    size = PassSize(MOST)
    after(size, lambda rows: 0.02 * rows, 100)
    assert after(size, lambda rows: 0.02, 2000)[-1] == MOST


def test_a_size_that_is_no_longer_worth_it_is_left() -> None:
    size = PassSize(MOST)
    after(size, lambda rows: 0.02, 100)
    assert after(size, lambda rows: 0.02 * rows, 9000)[-1] <= 2


def test_a_pass_never_has_more_rows_than_it_may() -> None:
    assert max(after(PassSize(48), lambda rows: 0.02, 200)) == 48
    assert set(after(PassSize(1), lambda rows: 0.02, 50)) == {1}


def test_passes_that_are_not_full_are_not_taken_for_full_ones() -> None:
    size = PassSize(MOST)
    for _ in range(100):
        size.learn(1, 0.02)
    assert size.rows == 2
    for _ in range(100):
        size.learn(1, 0.02)
    assert size.rows == 2
