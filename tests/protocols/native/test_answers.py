"""Answers in parts are, byte for byte, what one object a number would give, and are made in little
memory.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.model.predictions import ClassBatch, ClassPrediction
from app.protocols.native import answers
from app.protocols.native.predictions import BATCH_RESPONSE, PREDICTION

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
MIB = 2**20


def one_by_one(batch: ClassBatch) -> bytes:
    """Write ``batch`` as orjson writes objects: an object of Python for each number."""
    rows = [
        {
            "prediction": index,
            "label": batch.classes[index],
            "probabilities": {f"class_{i}": value for i, value in enumerate(row)},
            "model_version": batch.model_version,
            "timestamp": batch.timestamp.isoformat(timespec="microseconds"),
        }
        for index, row in zip(batch.class_indices.tolist(), batch.answers, strict=True)
    ]
    document = {
        "predictions": rows,
        "total_samples": len(rows),
        "model_version": batch.model_version,
    }
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


@contextmanager
def parts_of(size: int) -> Iterator[None]:
    """Make parts of so many bytes of slots."""
    with patch.object(answers, "PART_BYTES", size):
        yield


def softmax(rows: int, classes: int) -> NDArray[np.float32]:
    logits = np.random.default_rng(5).normal(size=(rows, classes)) * 4
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype("f4")
    return probabilities


def batch_of(probabilities: NDArray[np.float32], **more: Any) -> ClassBatch:
    classes = tuple(f"label {index}" for index in range(probabilities.shape[1]))
    return ClassBatch(
        **{
            "class_indices": probabilities.argmax(axis=1),
            "answers": probabilities,
            "outputs": {},
            "classes": classes,
            "model_version": "1",
            "timestamp": NOW,
        }
        | more
    )


# Any float32 that is finite, by its bits: what orjson writes of it, and how long, is orjson's.
floats = st.integers(0, 2**32 - 1).map(lambda bits: np.uint32(bits).view(np.float32))
numbers = st.one_of(
    floats.filter(lambda value: bool(np.isfinite(value))),
    st.sampled_from([0.0, -0.0, 1.0, 1e-5, 1.1754944e-38, 1e-45, 3.4028235e38, -1961229700000]),
    st.floats(0, 1, width=32),
)


@st.composite
def batches(draw: st.DrawFn) -> ClassBatch:
    classes = draw(st.lists(st.text(min_size=1, max_size=9), min_size=2, max_size=13, unique=True))
    row = st.lists(numbers, min_size=len(classes), max_size=len(classes))
    rows = draw(st.lists(row, max_size=7))
    matrix = np.array(rows, dtype=np.float32).reshape(-1, len(classes))
    indices = draw(
        st.lists(st.integers(0, len(classes) - 1), min_size=len(matrix), max_size=len(matrix))
    )
    return batch_of(
        matrix,
        class_indices=np.array(indices, dtype=np.intp),
        classes=tuple(classes),
        model_version=draw(st.sampled_from(["1", "2.0+b"])),
    )


@given(batches(), st.sampled_from([1, 100, 300, 1000, 5 << 19]))
def test_a_batch_is_written_as_one_object_a_number_would_be(batch: ClassBatch, size: int) -> None:
    # A slot must fit, so that rows are cut between their values at the smallest.
    with parts_of(max(size, 64)):
        parts = BATCH_RESPONSE.in_parts(batch)
        written = list(parts)
    assert b"".join(written) == one_by_one(batch)
    assert len(written) == len(parts)
    assert all(type(part) is bytes and part for part in written)


@given(batches().filter(len), st.booleans())
def test_a_row_is_written_alone_as_in_a_batch(batch: ClassBatch, has_many: bool) -> None:
    together = orjson.loads(BATCH_RESPONSE.encode(batch))["predictions"]
    with patch("app.protocols.native.predictions._FEW_VALUES", 1 if has_many else 64):
        for prediction, row in zip(batch, together, strict=True):
            alone = PREDICTION.encode(prediction)
            assert (
                alone
                == orjson.dumps(row | {"probabilities": 0}).replace(
                    b'"probabilities":0', b'"probabilities":' + _written(prediction)
                )
                + b"\n"
            )


def _written(prediction: ClassPrediction) -> bytes:
    values = {f"class_{i}": np.float32(v) for i, v in enumerate(prediction.probabilities)}
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)


def test_no_float32_is_longer_than_its_slot() -> None:
    bits = np.random.default_rng(3).integers(0, 2**32, size=300_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    written = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    slots = answers._digits(values)
    assert [slot.tobytes().rstrip(b"\0") for slot in slots[:5000]] == written[:5000]
    assert max(map(len, written)) <= answers.SLOT_BYTES


@pytest.mark.parametrize(("rows", "classes"), [(10_000, 2), (10_000, 1), (1, 90_000)])
def test_answers_that_are_large_in_one_way_alone_are_one_part(rows: int, classes: int) -> None:
    batch = batch_of(softmax(rows, classes))
    assert len(BATCH_RESPONSE.in_parts(batch)) == (1 if classes < 90_000 else 2)
    assert BATCH_RESPONSE.encode(batch) == one_by_one(batch)


@pytest.mark.parametrize(("rows", "classes"), [(3000, 100), (300, 1000), (2, 150_000), (40_000, 3)])
def test_parts_are_alike_in_size_however_the_answer_is_shaped(rows: int, classes: int) -> None:
    batch = batch_of(softmax(rows, classes))
    parts = [len(part) for part in BATCH_RESPONSE.in_parts(batch)]
    assert len(parts) > 2
    assert max(parts) <= answers.PART_BYTES
    assert sum(parts) == len(one_by_one(batch))


def test_an_answer_is_made_in_the_memory_that_the_capacity_page_states() -> None:
    """4 bytes a value and 8 a row for as long as it lasts, and 16 MiB while a part is made: the
    whole JSON would be six times the former.
    """
    batch = batch_of(softmax(2000, 500))
    size = len(b"".join(BATCH_RESPONSE.in_parts(batch)))  # and the keys are made
    tracemalloc.start()
    try:
        encoded = BATCH_RESPONSE.in_parts(batch)
        del batch
        between = []
        for _ in encoded:
            between.append(tracemalloc.get_traced_memory()[0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 20 * MIB
    assert encoded.nbytes < 2000 * 500 * 4 + 2000 * 8 + 64 * 1024
    assert peak < 16 * MIB
    # A part that was taken is not kept: what is held doesn't grow with what was made.
    assert all(later - sooner < MIB // 4 for sooner, later in pairwise(between[1:-1]))
