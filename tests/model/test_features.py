"""How samples become rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model.encoder import FeatureEncoder
from app.model.errors import MAX_FAULTS, FeatureMismatch, InvalidFeatures
from app.model.features import FLOAT32_OVERFLOW, Feature
from app.model.signature import FEATURES, Array, Tensors

ENCODER = FeatureEncoder([Feature("a", minimum=0, maximum=10), Feature("b", nullable=True)])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
near_samples = st.dictionaries(st.sampled_from(["a", "b", "c"]), json_values)


def matrix(rows: Tensors) -> Array:
    """Return the one tensor of ``rows``."""
    assert [*rows] == [FEATURES]
    return rows[FEATURES]


def acceptable(sample: Any) -> bool:
    """Say what the contract accepts, in other words than the code does."""

    def number(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        try:
            with np.errstate(over="ignore"):
                return bool(np.isfinite(np.float32(float(value))))
        except OverflowError:
            return False

    return (
        isinstance(sample, dict)
        and sorted(sample) == ["a", "b"]
        and number(sample["a"])
        and (sample["b"] is None or number(sample["b"]))
    )


@given(json_values | near_samples)
def test_exactly_what_the_contract_accepts_is_accepted(sample: Any) -> None:
    if acceptable(sample):
        row = matrix(ENCODER.encode(sample))
        assert row.dtype == np.float32
        assert row.shape == (1, 2)
        expected = [math.nan if v is None else v for v in (sample["a"], sample["b"])]
        np.testing.assert_array_equal(row[0], np.array(expected, dtype=np.float64).astype("f4"))
    else:
        with pytest.raises(InvalidFeatures) as refusal:
            ENCODER.encode(sample)
        assert refusal.value.faults


@given(st.lists(near_samples, max_size=20))
def test_a_batch_is_accepted_when_each_of_its_samples_is(samples: list[Any]) -> None:
    faulty = [i for i, sample in enumerate(samples) if not acceptable(sample)]
    if faulty:
        with pytest.raises(InvalidFeatures) as refusal:
            ENCODER.encode_batch(samples)
        assert sorted({fault.path[0] for fault in refusal.value.faults}) == faulty
    else:
        rows = [matrix(ENCODER.encode(sample)) for sample in samples]
        expected = np.concatenate(rows) if rows else np.empty((0, 2))
        np.testing.assert_array_equal(matrix(ENCODER.encode_batch(samples)), expected)


@given(st.permutations(["a", "b"]))
def test_the_order_of_names_does_not_matter(names: list[str]) -> None:
    values = {"a": 1.0, "b": 2.0}
    row = matrix(ENCODER.encode({name: values[name] for name in names}))
    assert row.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_bound_is_where_float32_rounds_to_infinity(sign: int) -> None:
    below = math.nextafter(FLOAT32_OVERFLOW, 0)
    assert np.isfinite(matrix(ENCODER.encode({"a": sign * below, "b": 0}))).all()
    with pytest.raises(InvalidFeatures, match="invalid value"):
        ENCODER.encode({"a": sign * FLOAT32_OVERFLOW, "b": 0})


def test_missing_and_extra_names_are_told_with_a_guess() -> None:
    with pytest.raises(FeatureMismatch) as refusal:
        FeatureEncoder([Feature("age"), Feature("income")]).encode({"agee": 1, "income": 2})
    assert str(refusal.value) == "Feature mismatch. Missing: ['age'], Extra: ['agee']."
    said = {fault.path: fault.detail for fault in refusal.value.faults}
    assert said[("age",)] == "is missing"
    assert "did you mean 'age'?" in said[("agee",)]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (True, "a boolean"),
        ("35", "a string"),
        ([1], "an array"),
        ({}, "an object"),
        (None, "null is not accepted"),
        (math.nan, "finite"),
        (10**400, "finite"),
    ],
)
def test_a_value_that_is_no_number_is_told_by_its_kind(value: Any, said: str) -> None:
    with pytest.raises(InvalidFeatures) as refusal:
        ENCODER.encode({"a": value, "b": 1})
    (fault,) = refusal.value.faults
    assert fault.path == ("a",)
    assert said in fault.detail


def test_a_number_that_is_nan_is_refused_even_where_null_is_accepted() -> None:
    with pytest.raises(InvalidFeatures):
        ENCODER.encode({"a": 1, "b": math.nan})


def test_the_faults_of_a_batch_are_bounded() -> None:
    with pytest.raises(InvalidFeatures) as refusal:
        ENCODER.encode_batch([{}] * 1000)
    assert len(refusal.value.faults) == MAX_FAULTS
    assert refusal.value.faults[-1].path[0] == MAX_FAULTS // 2 - 1


def test_no_more_faults_are_looked_for_than_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the names of a caller nor the guesses at them cost more than a bounded effort."""
    searches: list[str] = []

    def search(name: str, *_: Any, **__: Any) -> list[str]:
        searches.append(name)
        return []

    monkeypatch.setattr("app.documents.suggestions.difflib.get_close_matches", search)
    sample = {f"name{i}": 1 for i in range(100_000)}
    for encode, content in ((ENCODER.encode, sample), (ENCODER.encode_batch, [sample])):
        searches.clear()
        with pytest.raises(FeatureMismatch) as refusal:
            encode(content)
        assert len(refusal.value.faults) == MAX_FAULTS
        assert 0 < len(searches) <= 10
    wide = FeatureEncoder([Feature(f"feature{i}") for i in range(2000)])
    searches.clear()
    with pytest.raises(FeatureMismatch):
        wide.encode({f"feature_{i}": 1 for i in range(100)})
    assert searches == []


def test_a_sentence_about_many_long_names_stays_short() -> None:
    with pytest.raises(FeatureMismatch) as refusal:
        ENCODER.encode({str(i) * 1000: 1 for i in range(200)})
    assert len(str(refusal.value)) < 1500
    assert f"and {MAX_FAULTS - 2 - 10} more]" in str(refusal.value)


def test_a_model_of_one_feature_takes_one_column() -> None:
    assert matrix(FeatureEncoder([Feature("x")]).encode({"x": 3})).tolist() == [[3.0]]


def test_values_outside_the_range_of_training_are_counted_by_feature() -> None:
    rows = ENCODER.encode_batch([{"a": -1, "b": 9e9}, {"a": 11, "b": None}, {"a": 10, "b": 0}])
    assert ENCODER.out_of_range(rows) == {"a": 2}


@given(st.lists(st.floats(width=32), min_size=2, max_size=2))
def test_one_row_is_counted_as_it_is_among_others(values: list[float]) -> None:
    row = np.array([values], dtype=np.float32)
    counts = ENCODER.out_of_range({FEATURES: row})
    twice = ENCODER.out_of_range({FEATURES: np.concatenate([row, row])})
    assert twice == dict.fromkeys(counts, 2)
    assert counts == ({"a": 1} if values[0] < 0 or values[0] > 10 else {})


@pytest.mark.parametrize("rows", [1, 8, 15, 16, 100])
def test_few_rows_are_counted_as_many_are(rows: int) -> None:
    features = [Feature("low", minimum=0.1), Feature("high", maximum=0.7), Feature("any")]
    encoder = FeatureEncoder([*features, Feature("both", minimum=0, maximum=1)])
    values = np.random.default_rng(rows).choice(
        np.array([np.nan, -0.5, 0.1, 0.7, 1.5], dtype=np.float32), (rows, 4)
    )
    counts = encoder.out_of_range({FEATURES: values})
    minimum, maximum = np.float32([0.1, -np.inf, -np.inf, 0]), np.float32([np.inf, 0.7, np.inf, 1])
    outside = ((values < minimum) | (values > maximum)).sum(axis=0).tolist()
    expected = {name: n for name, n in zip(encoder.names, outside, strict=True) if n}
    assert [*counts.items()] == [*expected.items()]  # and in the order of the features
