"""Answers are written as JSON without their rows becoming objects, and say what the schemas say."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.model.predictions import ClassBatch, ClassPrediction
from app.protocols.native.predictions import BATCH_RESPONSE, PREDICTION

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
labels = st.text(max_size=8).filter(lambda text: text.isprintable() or "\n" in text)
probabilities = st.floats(0, 1, width=32)


@st.composite
def batches(draw: st.DrawFn) -> ClassBatch:
    classes = draw(st.lists(labels, min_size=1, max_size=12, unique=True))
    row = st.lists(probabilities, min_size=len(classes), max_size=len(classes))
    matrix = np.array(draw(st.lists(row, max_size=5)), dtype=np.float32).reshape(-1, len(classes))
    version = draw(st.sampled_from(["1", "2-ü", 'a"b\\']))
    return ClassBatch(
        class_indices=matrix.argmax(axis=1),
        answers=matrix,
        outputs={},
        classes=tuple(classes),
        model_version=version,
        timestamp=NOW,
    )


def as_float32(row: Any) -> NDArray[np.float32]:
    return np.array(list(row), dtype=np.float64).astype(np.float32)


@given(batches())
def test_a_batch_is_written_as_its_schema_describes_it(batch: ClassBatch) -> None:
    written = BATCH_RESPONSE.encode(batch)
    assert written.endswith(b"}\n")
    answer = json.loads(written)
    assert list(answer) == list(BATCH_RESPONSE.fields)
    assert (answer["total_samples"], answer["model_version"]) == (len(batch), batch.model_version)
    assert len(answer["predictions"]) == len(batch)
    for prediction, got in zip(batch, answer["predictions"], strict=True):
        assert [*got, "top"] == list(PREDICTION.fields)  # which is there where it is asked for
        same = PREDICTION.dump(prediction)
        assert list(got["probabilities"]) == list(same["probabilities"])
        # Fewer digits than a float64 has, and yet the same float32.
        assert np.array_equal(
            as_float32(got.pop("probabilities").values()),
            as_float32(same.pop("probabilities").values()),
        )
        assert got == same


@given(batches())
def test_a_prediction_is_written_alone_as_in_a_batch(batch: ClassBatch) -> None:
    together = json.loads(BATCH_RESPONSE.encode(batch))["predictions"]
    assert [json.loads(PREDICTION.encode(prediction)) for prediction in batch] == together


def test_probabilities_are_written_with_the_digits_of_a_float32() -> None:
    value = float(np.float32(0.1))
    prediction = ClassPrediction(
        class_index=0, label="a", values=(value, 1 - value), model_version="1", timestamp=NOW
    )
    written = PREDICTION.encode(prediction)
    assert b'"class_0":0.1,"class_1":0.9}' in written


def test_the_time_always_has_microseconds() -> None:
    for microsecond, written in ((0, b"05.000000"), (1, b"05.000001"), (678000, b"05.678000")):
        prediction = ClassPrediction(
            class_index=0,
            label="a",
            values=(1.0,),
            model_version="1",
            timestamp=NOW.replace(microsecond=microsecond),
        )
        assert b'"timestamp":"2026-01-02T03:04:%b+00:00"' % written in PREDICTION.encode(prediction)
