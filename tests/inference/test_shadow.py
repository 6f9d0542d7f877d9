"""A shadow is compared by name, counts what it can't answer, and leaves nothing behind."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from app.inference.comparison import ShadowResult, Timing, compare
from app.inference.sample import Pair, Sample
from app.inference.shadow import Shadow, ShadowObserver
from app.model.bundle import Bundle
from app.model.manifest import Manifest
from app.model.model import Model
from app.model.signature import FEATURES, PROBABILITIES, Tensors
from app.registry.loading import ModelSource, load_model

MATRIX = np.array([[30, 20_000, 1], [60, np.nan, 9], [45, 1_000, 3]], dtype=np.float32)
ROWS = {FEATURES: MATRIX}
ONE, NONE = {FEATURES: MATRIX[:1]}, {FEATURES: MATRIX[:0]}


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

    def run(self, inputs: Tensors) -> Tensors:
        self.given = inputs[FEATURES]
        return {PROBABILITIES: self.answers}


def test_a_version_agrees_with_itself(pair: tuple[Model, Model]) -> None:
    stable, _ = pair
    told = compare(stable, stable, ROWS, stable.predict_batch(ROWS).comparable())
    assert (told.agreed, told.compared, told.failed) == (3, 3, 0)
    assert told.difference == pytest.approx(0, abs=1e-6)


def test_features_and_classes_are_matched_by_name(pair: tuple[Model, Model]) -> None:
    stable, candidate = pair
    batch = stable.predict_batch(ROWS)
    backwards = Answering(np.ascontiguousarray(batch.answers[:, ::-1]))
    known = candidate.manifest
    reordered = Manifest.of_classifier("m", "2", known.features[::-1], known.classes[::-1])
    candidate = Model(Bundle(reordered, None, None), backwards, "")
    told = compare(stable, candidate, ROWS, batch.comparable())
    assert np.array_equal(backwards.given, MATRIX[:, ::-1], equal_nan=True)
    assert (told.agreed, told.difference) == (3, 0)


def test_an_answer_that_is_no_number_is_a_failure_and_poisons_nothing(
    pair: tuple[Model, Model],
) -> None:
    stable, candidate = pair
    batch = stable.predict_batch(ROWS)
    broken = batch.answers.copy()
    broken[1] = np.nan
    candidate.runtime = Answering(broken)
    told = compare(stable, candidate, ROWS, batch.comparable())
    assert (told.compared, told.agreed, told.failed, told.difference) == (2, 2, 1, 0)


class Recorder(ShadowObserver):
    """Keeps what a shadow finds."""

    def __init__(self) -> None:
        self.total = ShadowResult()
        self.timings: list[Timing] = []

    def compared(self, pair: Pair, result: ShadowResult) -> None:
        self.total += result

    def timed(self, stable: Model, candidate: Model, timing: Timing) -> None:
        self.timings.append(timing)


class Counting(Answering):
    """Answers each row with the first of its answers, and keeps how many rows each pass had."""

    def __init__(self, answers: NDArray[np.float32]) -> None:
        super().__init__(answers[:1])
        self.passes: list[int] = []

    def run(self, inputs: Tensors) -> Tensors:
        rows = len(inputs[FEATURES])
        self.passes.append(rows)
        return {PROBABILITIES: np.repeat(self.answers, rows, axis=0)}


class Waiting(Counting):
    """Is asked, and answers when it is told to go on."""

    def __init__(self, answers: NDArray[np.float32]) -> None:
        super().__init__(answers)
        self.is_asked, self.go_on = threading.Event(), threading.Event()

    def run(self, inputs: Tensors) -> Tensors:
        self.is_asked.set()
        assert self.go_on.wait(60)
        return super().run(inputs)


def test_what_can_not_be_compared_is_counted_and_logged_once(
    pair: tuple[Model, Model],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("lantern"), "propagate", True)
    stable, candidate = pair
    candidate.manifest = replace(candidate.manifest, classes=("no", "maybe", "never"))
    found = Recorder()
    shadow = Shadow(found)
    for _ in range(5):
        shadow.offer(stable, candidate, ROWS, stable.predict_batch(ROWS))
        assert shadow.wait(60)
    assert found.total == ShadowResult(failed=15)
    # Where an application was made before, its logger has caplog's handler, too.
    assert len({id(record) for record in caplog.records if record.exc_info}) == 1


def test_rows_of_many_requests_are_predicted_together(pair: tuple[Model, Model]) -> None:
    stable, candidate = pair
    batch = stable.predict_batch(ROWS)
    candidate.runtime = counting = Counting(batch.answers)
    found = Recorder()
    shadow = Shadow(found)
    for _ in range(60):  # they are all here before the thread has waited for others
        shadow.offer(stable, candidate, ONE, stable.predict(ONE))
    assert shadow.wait(60)
    assert found.total == ShadowResult(agreed=60, compared=60)
    assert max(counting.passes) > 1
    assert sum(n for n in counting.passes if n > 1) + counting.passes.count(1) >= 60


def test_a_row_that_the_candidate_fails_on_fails_alone(pair: tuple[Model, Model]) -> None:
    stable, candidate = pair
    batch = stable.predict_batch(ROWS)

    class Picky(Counting):
        def run(self, inputs: Tensors) -> Tensors:
            if (inputs[FEATURES][:, 0] == 60).any():
                raise ValueError("not this one")
            return super().run(inputs)

    candidate.runtime = Picky(batch.answers)
    found = Recorder()
    shadow = Shadow(found)
    shadow.offer(stable, candidate, ROWS, batch)
    assert shadow.wait(60)
    assert (found.total.compared, found.total.failed) == (2, 1)


def test_both_versions_are_timed_on_the_same_row(pair: tuple[Model, Model]) -> None:
    stable, candidate = pair
    found = Recorder()
    shadow = Shadow(found)
    # A single row, which is a single pass: another, a second later, would be timed again.
    shadow.offer(stable, candidate, ONE, stable.predict(ONE))
    assert shadow.wait(60)
    (timing,) = found.timings
    assert timing.stable > 0
    assert timing.candidate > 0


def test_nobody_waits_for_a_candidate_that_does_not_answer(pair: tuple[Model, Model]) -> None:
    stable, candidate = pair
    batch = stable.predict_batch(ROWS)
    candidate.runtime = waiting = Waiting(batch.answers)
    found = Recorder()
    shadow = Shadow(found)
    shadow.offer(stable, candidate, ROWS, batch)
    assert waiting.is_asked.wait(60)
    shadow.offer(stable, candidate, ROWS, batch)  # it would wait for ever
    assert found.total.compared == 0
    waiting.go_on.set()
    assert shadow.wait(60)
    assert found.total.compared == 6


def test_no_rows_are_nothing(pair: tuple[Model, Model]) -> None:
    stable, candidate = pair
    shadow = Shadow(ShadowObserver())
    shadow.offer(stable, candidate, NONE, stable.predict_batch(NONE))
    assert shadow.wait(0)
    assert shadow.stop(0)


def test_too_many_rows_are_sampled_with_the_same_odds_for_each(
    pair: tuple[Model, Model],
) -> None:
    """Be it one of a large batch or alone, the first or the last."""
    answers = np.zeros((1, 3), dtype=np.float32)
    versions = Pair.of(*pair)
    kept: list[float] = []
    for seed in range(40):
        sample = Sample(100, np.random.default_rng(seed))
        number = 0
        for size in [1] * 500 + [500] + [1] * 500 + [250] * 2:
            numbers = np.arange(number, number + size, dtype=np.float32)[:, np.newaxis]
            if size > 1 or not sample.skip(versions):
                sample.add(versions, {"n": numbers}, {"p": np.repeat(answers, size, axis=0)})
            number += size
        rows = [value for each in sample.blocks for value in each.rows["n"][:, 0].tolist()]
        assert len(rows) == sample.rows <= 100
        assert len(set(rows)) == len(rows)
        assert sample.dropped == {versions: 2000 - len(rows)}
        kept += rows
    quarters = np.histogram(kept, bins=[0, 500, 1000, 1500, 2000])[0]
    assert quarters.min() > 0.8 * len(kept) / 4


def test_rows_of_a_version_that_is_gone_can_still_be_dropped(three_versions: Path) -> None:
    stable, candidate = (load_model(ModelSource(three_versions / v)) for v in ("1", "2"))
    pair = Pair.of(stable, candidate)
    sample = Sample(10, np.random.default_rng(1))
    answers = {"p": np.zeros((3, 3), np.float32)}
    sample.add(pair, ROWS, answers)
    gone = weakref.ref(candidate)
    del candidate
    gc.collect()
    assert gone() is None
    for _ in range(9):
        sample.add(pair, ROWS, answers)
    assert sample.rows + sample.dropped[pair] == 30


def test_rows_that_wait_are_an_object_for_many_requests_and_not_one_for_each(
    pair: tuple[Model, Model],
) -> None:
    """Also where requests for several models come in turn."""
    pairs = Pair.of(*pair), Pair.of(*reversed(pair))
    sample = Sample(10**9, np.random.default_rng(1))
    for number in range(1000):
        sample.add(pairs[number % 2], ONE, {"p": np.full((1, 3), number, np.float32)})
    assert [len(block) for block in sample.blocks] == [500, 500]
    *_, last = sample.blocks
    assert last.answers["p"][:, 0].tolist() == list(range(1, 1000, 2))


def test_the_memory_of_what_waits_is_bounded(
    pair: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.inference.sample.MAX_BYTES", 200_000)
    sample = Sample(10**9, np.random.default_rng(1))
    versions = Pair.of(*pair)
    rows = {"n": np.zeros((1000, 5), np.float32)}
    answers = {"p": np.zeros((1000, 2), np.float32)}
    for _ in range(30):
        sample.add(versions, rows, answers)
        sizes = [each.rows["n"].nbytes + each.answers["p"].nbytes for each in sample.blocks]
        assert sum(sizes) <= 200_000
    assert sample.rows + sample.dropped[versions] == 30_000


def test_the_busier_the_worker_the_longer_the_pauses(
    pair: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy worker gives up a two hundredth of its core; rows beyond that are dropped."""
    stable, candidate = pair
    batch = stable.predict_batch(ROWS)
    now = 0.0

    class Slow(Counting):
        """Takes 10 ms a row, by a clock of its own."""

        def run(self, inputs: Tensors) -> Tensors:
            nonlocal now
            now += 0.01 * len(inputs[FEATURES])
            return super().run(inputs)

    monkeypatch.setattr("app.inference.shadow.time", SimpleNamespace(perf_counter=lambda: now))
    candidate.runtime = Slow(batch.answers)
    found = {}
    for in_flight in (0.0, 0.3, 5.0):
        pauses: list[float] = []
        shadow = Shadow(ShadowObserver(), lambda: in_flight)  # noqa: B023
        monkeypatch.setattr(shadow, "_pause", lambda seconds: pauses.append(seconds) or True)  # noqa: B023
        sample = Sample(100, np.random.default_rng(1))
        for _ in range(20):
            sample.add(Pair.of(stable, candidate), ONE, stable.predict(ONE).comparable())
        before = now
        shadow._compare_all(sample)
        found[in_flight] = (now - before) / (now - before + sum(pauses))
        # What is kept for the next round takes a second with the pauses, where it can be so few.
        assert shadow._new_sample()._max_rows == 64
    assert found == pytest.approx({0.0: 0.5, 0.3: 0.2, 5.0: 0.005})


def test_a_thread_that_can_not_start_costs_the_comparison_and_not_the_answer(
    pair: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    stable, candidate = pair
    found = Recorder()
    shadow = Shadow(found)

    def no_threads(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_threads)
        shadow.offer(stable, candidate, ROWS, stable.predict_batch(ROWS))
    assert found.total == ShadowResult(dropped=3)
    shadow.offer(stable, candidate, ROWS, stable.predict_batch(ROWS))
    assert shadow.wait(60)
    assert (found.total.compared, found.total.dropped) == (3, 3)


def test_a_shadow_that_was_replaced_is_freed(three_versions: Path) -> None:
    stable, candidate = (load_model(ModelSource(three_versions / v)) for v in ("1", "2"))
    shadow = Shadow(ShadowObserver())
    shadow.offer(stable, candidate, ROWS, stable.predict_batch(ROWS))
    assert shadow.wait(60)
    gone = weakref.ref(candidate)
    del candidate
    gc.collect()
    assert gone() is None


def test_rows_that_wait_keep_no_model_and_are_dropped_with_it(
    three_versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow it is: its rows wait through long pauses."""
    stable, candidate = (load_model(ModelSource(three_versions / v)) for v in ("1", "2"))
    batch = stable.predict_batch(ROWS)
    candidate.runtime = Counting(batch.answers)
    found = Recorder()
    shadow = Shadow(found)
    shadow._seconds_a_row = 1.0  # a pass of one row
    is_paused, go_on = threading.Event(), threading.Event()

    def pause(seconds: float) -> bool:
        if found.total.compared:
            is_paused.set()
            assert go_on.wait(60)
        return True

    monkeypatch.setattr(shadow, "_pause", pause)
    shadow.offer(stable, candidate, ROWS, batch)
    assert is_paused.wait(60)
    gone = weakref.ref(candidate)
    del candidate
    gc.collect()
    assert gone() is None
    go_on.set()
    assert shadow.wait(60)
    assert (found.total.compared, found.total.dropped) == (1, 2)


def test_what_waits_at_the_end_is_counted(pair: tuple[Model, Model]) -> None:
    stable, candidate = pair
    batch = stable.predict_batch(ROWS)
    candidate.runtime = waiting = Waiting(batch.answers)
    found = Recorder()
    shadow = Shadow(found)
    shadow._seconds_a_row = 1.0
    shadow.offer(stable, candidate, ROWS, batch)
    assert waiting.is_asked.wait(60)
    shadow.offer(stable, candidate, ROWS, batch)
    assert not shadow.stop(0)
    shadow.offer(stable, candidate, ROWS, batch)
    waiting.go_on.set()
    assert shadow.stop(60)
    assert (found.total.compared, found.total.dropped) == (1, 8)
