"""The answers of every task: what is encoded is what is dumped, in parts of bounded size."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model.predictions import Batch, ClassBatch, EmbeddingBatch, LabelsBatch, ValuesBatch
from app.protocols.native import plain_answers, predictions
from app.protocols.native.predictions import ResponseBodies

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
COMMON: dict[str, Any] = {"outputs": {}, "model_version": '2-ü"', "timestamp": NOW}
FORMS = ("scores", "multilabel", "regression", "embedding")


def matrix(draw: st.DrawFn, rows: int, width: int, dtype: Any) -> Any:
    bits = 32 if dtype is np.float32 else 64
    number = st.floats(width=bits, allow_nan=False, allow_infinity=False)
    values = draw(st.lists(number, min_size=rows * width, max_size=rows * width))
    return np.array(values, dtype=dtype).reshape(rows, width)


def batch_of(form: str, answers: Any) -> Batch:
    """A batch of a task, with what else it needs."""
    names = tuple(f"name {i}" for i in range(answers.shape[1]))
    if form == "scores":
        indices = answers.argmax(axis=1) if answers.size else np.zeros(len(answers), dtype=int)
        return ClassBatch(
            answers=answers, class_indices=indices, classes=names, are_scores=True, **COMMON
        )
    if form == "multilabel":
        return LabelsBatch(answers=answers, applies=answers > 0.5, labels=names, **COMMON)
    if form == "regression":
        return ValuesBatch(answers=answers, targets=names, **COMMON)
    return EmbeddingBatch(answers=answers, **COMMON)


@st.composite
def batches(draw: st.DrawFn) -> tuple[ResponseBodies, Batch, Any]:
    form = draw(st.sampled_from(FORMS))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    if form == "multilabel":
        dtype = np.float32
    rows, width = draw(st.integers(0, 5)), draw(st.integers(1, 9))
    bodies = predictions._bodies(form, np.float32 if dtype is np.float32 else float)
    return bodies, batch_of(form, matrix(draw, rows, width, dtype)), dtype


def rounded(value: Any, dtype: Any) -> Any:
    """The document with its numbers as the model has them."""
    if isinstance(value, float):
        return float(dtype(value))
    if isinstance(value, dict):
        return {key: rounded(each, dtype) for key, each in value.items()}
    return [rounded(each, dtype) for each in value] if isinstance(value, list | tuple) else value


@given(batches(), st.sampled_from([1, 2, 3, 1 << 14]))
def test_what_is_encoded_is_what_is_dumped_however_it_is_cut(
    drawn: tuple[ResponseBodies, Batch, Any], size: int
) -> None:
    bodies, batch, dtype = drawn
    with patch.object(plain_answers, "PART_VALUES", size):
        encoded = bodies.many.in_parts(batch)
        parts = list(encoded)
        assert len(parts) == len(encoded)
        assert all(parts)
    answer = json.loads(b"".join(parts))
    assert list(answer) == list(bodies.many.fields)
    assert (answer["total_samples"], answer["model_version"]) == (len(batch), '2-ü"')
    assert len(answer["predictions"]) == len(batch)
    rows: Any = batch
    for prediction, got in zip(rows, answer["predictions"], strict=True):
        assert list(got) == [name for name in bodies.one.fields if name != "top"]
        assert rounded(got, dtype) == rounded(bodies.one.dump(prediction), dtype)
        with (
            patch.object(plain_answers, "PART_VALUES", size),
            patch.object(predictions, "_FEW_VALUES", 1 if size < 9 else 64),
        ):
            assert json.loads(bodies.one.encode(prediction)) == got


@pytest.mark.parametrize("form", FORMS)
def test_numbers_have_the_digits_of_their_datatype(form: str) -> None:
    for dtype, written in ((np.float32, b"0.1"), (np.float64, b"0.10000000149011612")):
        batch = batch_of(form, np.array([[np.float32(0.1)] * 2], dtype=dtype))
        bodies = predictions._bodies(form, np.float32 if dtype is np.float32 else float)
        (prediction,) = batch  # type: ignore[attr-defined]
        for encoded in (bodies.one.encode(prediction), bodies.many.encode(batch)):
            assert written + b"," in encoded or written + b"}" in encoded or written in encoded
            assert (b"0.10000000149011612" in encoded) == (dtype is np.float64)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("rows", "width"), [(20_000, 3), (200, 400), (2, 60_000)])
def test_parts_are_alike_in_size_however_the_answer_is_shaped(
    form: str, rows: int, width: int
) -> None:
    batch = batch_of(form, np.full((rows, width), 0.25, dtype=np.float32))
    encoded = predictions._bodies(form, np.float32).many.in_parts(batch)
    assert encoded.nbytes < batch.answers.nbytes * 3 + rows * 8
    parts = [len(part) for part in encoded]
    assert len(parts) == len(encoded) > 2
    assert max(parts) < 3 << 20


def test_an_embedding_of_a_higher_rank_is_cut_along_its_first_dimension() -> None:
    answers = np.arange(2 * 5 * 3 * 2, dtype=np.float32).reshape(2, 5, 3, 2)
    batch = EmbeddingBatch(answers=answers, **COMMON)
    bodies = predictions._bodies("embedding", np.float32)
    with patch.object(plain_answers, "PART_VALUES", 12):
        encoded = bodies.many.in_parts(batch)
        assert len(list(encoded)) == len(encoded) == 2 * 3
        rows = json.loads(b"".join(encoded))["predictions"]
    assert [row["embedding"] for row in rows] == answers.tolist()
