"""What is remembered: the right row's answer, of the rows asked for last, and never a wrong one."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.model.cache import AnswerCache
from app.model.errors import NonFiniteOutput
from app.model.model import Model
from app.model.signature import FEATURES, Tensors
from app.registry.loading import ModelSource, load_model
from tests.model.test_network import overflowing_checkpoint


class Counting:
    """A runtime that counts how often it runs."""

    def __init__(self, runtime: object) -> None:
        self._runtime = runtime
        self.name, self.device = runtime.name, runtime.device
        self.runs = 0

    def run(self, inputs: Tensors) -> Tensors:
        self.runs += 1
        return self._runtime.run(inputs)


def counted(path: Path, cache_size: int) -> tuple[Model, Counting]:
    model = load_model(ModelSource(path, cache_size=cache_size))
    model.runtime = runtime = Counting(model.runtime)
    return model, runtime


def row(*values: float) -> Tensors:
    return {FEATURES: np.array([values], dtype=np.float32)}


def test_the_same_row_is_answered_without_the_network(packed: Path) -> None:
    model, runtime = counted(packed, 10)
    first, second = (model.predict(row(30, 20_000, 1)) for _ in range(2))
    assert (first.was_cached, second.was_cached) == (False, True)
    assert runtime.runs == 1
    assert first.probabilities == second.probabilities
    assert first.label == second.label
    assert second.timestamp >= first.timestamp


def test_rows_that_differ_in_anything_do_not_share_an_answer(packed: Path) -> None:
    model, _ = counted(packed, 100)
    plain = load_model(ModelSource(packed))
    rows = [
        row(30, 1, 0),
        row(30, 0, 1),
        row(30, np.nan, 1),
        row(np.nextafter(np.float32(30), np.float32(31)), 0, 1),
    ]
    for values in [*rows, *rows]:
        assert model.predict(values).probabilities == plain.predict(values).probabilities
    assert len(model.cache) == len(rows)


def test_nothing_is_remembered_unless_it_is_asked_for(packed: Path) -> None:
    model, runtime = counted(packed, 0)
    answers = [model.predict(row(30, 20_000, 1)) for _ in range(2)]
    assert [answer.was_cached for answer in answers] == [None, None]
    assert runtime.runs == 2


def test_a_batch_is_computed_and_leaves_the_cache_alone(packed: Path) -> None:
    model, runtime = counted(packed, 10)
    model.predict(row(30, 20_000, 1))
    model.predict_batch({FEATURES: np.repeat(row(30, 20_000, 1)[FEATURES], 3, axis=0)})
    assert runtime.runs == 2
    assert len(model.cache) == 1


def test_what_could_not_be_answered_is_not_remembered(tmp_path: Path) -> None:
    torch.save(overflowing_checkpoint(), tmp_path / "model.pt")
    names = ("a", "b", "c", "d")
    model = load_model(ModelSource(tmp_path / "model.pt", feature_names=names, cache_size=10))
    for _ in range(2):
        with pytest.raises(NonFiniteOutput):
            model.predict(row(3e38, 3e38, 3e38, 3e38))
    assert len(model.cache) == 0


@given(st.integers(1, 5), st.lists(st.integers(0, 8), max_size=60))
def test_those_asked_for_last_are_kept(size: int, asked: list[int]) -> None:
    cache = AnswerCache(size)
    recent: list[int] = []  # what a least-recently-used cache holds, the last one last
    for number in asked:
        key = bytes([number])
        assert (cache.get(key) is not None) == (number in recent)
        if number in recent:
            recent.remove(number)
            assert cache.get(key) == (float(number),)
        else:
            cache.put(key, (float(number),))
        recent = [*recent, number][-size:]
    assert len(cache) == len(recent)


def test_threads_that_share_it_get_right_answers(packed: Path) -> None:
    model, _ = counted(packed, 3)
    plain = load_model(ModelSource(packed))
    rows = [row(age, 1000, 1) for age in range(20, 30)]
    right = [plain.predict(values).probabilities for values in rows]
    wrong: list[int] = []

    def ask() -> None:
        for number in range(300):
            i = number * 7 % len(rows)
            if model.predict(rows[i]).probabilities != right[i]:
                wrong.append(i)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(model.cache) == 3
