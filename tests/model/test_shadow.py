"""A shadow is compared by name, counts what it can't answer, and leaves nothing behind."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.model.loading import ModelSource, load_model
from app.model.model import Model
from app.model.shadow import Comparison, Shadow, compare

ROWS = np.array([[30, 20_000, 1], [60, np.nan, 9], [45, 1_000, 3]], dtype=np.float32)


@pytest.fixture
def pair(three_versions: Path) -> tuple[Model, Model]:
    """Two versions that answer differently."""
    one, other = (load_model(ModelSource(three_versions / version)) for version in ("1", "2"))
    return one, other


class Answering:
    """A runtime that gives what it is told, and keeps what it is given."""

    name, device = "fake", "cpu"

    def __init__(self, answers: NDArray[np.float32]) -> None:
        self.answers = answers
        self.given: NDArray[np.float32] | None = None

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        self.given = matrix
        return self.answers


def test_a_version_agrees_with_itself(pair: tuple[Model, Model]) -> None:
    stable, _ = pair
    told = compare(stable, stable, ROWS, stable.runtime.run(ROWS))
    assert (told.agreed, told.compared, told.failed) == (3, 3, 0)
    assert told.difference == pytest.approx(0, abs=1e-6)


def test_features_and_classes_are_matched_by_name(pair: tuple[Model, Model]) -> None:
    stable, candidate = pair
    answers = stable.runtime.run(ROWS)
    backwards = Answering(np.ascontiguousarray(answers[:, ::-1]))
    candidate.runtime = backwards
    candidate.encoder.names = candidate.encoder.names[::-1]
    candidate.classes = candidate.classes[::-1]
    told = compare(stable, candidate, ROWS, answers)
    assert np.array_equal(backwards.given, ROWS[:, ::-1], equal_nan=True)
    assert (told.agreed, told.difference) == (3, 0)


def test_an_answer_that_is_no_number_is_a_failure_and_poisons_nothing(
    pair: tuple[Model, Model],
) -> None:
    stable, candidate = pair
    answers = stable.runtime.run(ROWS)
    broken = answers.copy()
    broken[1] = np.nan
    candidate.runtime = Answering(broken)
    told = compare(stable, candidate, ROWS, answers)
    assert (told.compared, told.agreed, told.failed, told.difference) == (2, 2, 1, 0)


def test_what_can_not_be_compared_is_counted_and_told_once(
    pair: tuple[Model, Model],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("lantern"), "propagate", True)
    stable, candidate = pair
    candidate.classes = ("no", "maybe")
    told: list[Comparison] = []
    shadow = Shadow(told.append)
    for _ in range(5):
        shadow.offer(stable, candidate, ROWS, stable.runtime.run(ROWS))
    assert shadow.wait(20)
    assert [comparison.failed for comparison in told] == [3] * 5
    # Where an application was made before, its logger has caplog's handler, too.
    assert len({id(record) for record in caplog.records if record.exc_info}) == 1


def test_rows_are_dropped_beyond_a_bound_of_memory_and_no_rows_are_nothing(
    pair: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    stable, candidate = pair
    answers = stable.runtime.run(ROWS)
    told: list[Comparison] = []
    go_on = threading.Event()

    class Waiting(Answering):
        def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
            assert go_on.wait(20)
            return self.answers

    candidate.runtime = Waiting(answers)
    monkeypatch.setattr("app.model.shadow.MOST_BYTES", 2 * (ROWS.nbytes + answers.nbytes))
    shadow = Shadow(told.append)
    for _ in range(5):
        shadow.offer(stable, candidate, ROWS, answers)
    shadow.offer(stable, candidate, ROWS[:0], answers[:0])
    assert [comparison.dropped for comparison in told] == [3, 3, 3]
    go_on.set()
    assert shadow.wait(20)
    assert [comparison.compared for comparison in told[3:]] == [3, 3]
    assert shadow.stop(20)


def test_a_thread_that_can_not_start_costs_the_comparison_and_not_the_answer(
    pair: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    stable, candidate = pair
    told: list[Comparison] = []
    shadow = Shadow(told.append)

    def no_threads(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_threads)
        shadow.offer(stable, candidate, ROWS, stable.runtime.run(ROWS))
    assert [comparison.dropped for comparison in told] == [3]
    shadow.offer(stable, candidate, ROWS, stable.runtime.run(ROWS))
    assert shadow.wait(20)
    assert told[-1].compared == 3


def test_a_shadow_that_was_replaced_is_freed(three_versions: Path) -> None:
    stable, candidate = (load_model(ModelSource(three_versions / v)) for v in ("1", "2"))
    shadow = Shadow(lambda comparison: None)
    shadow.offer(stable, candidate, ROWS, stable.runtime.run(ROWS))
    assert shadow.wait(20)
    gone = weakref.ref(candidate)
    del candidate
    gc.collect()
    assert gone() is None
