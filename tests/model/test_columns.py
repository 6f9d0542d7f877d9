"""Values of features of every kind, in tensors of every datatype that may hold them."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.model.columns import LARGEST_EXACT
from app.model.encoder import FeatureEncoder
from app.model.errors import MAX_FAULTS, InvalidFeatures
from app.model.features import MAX_CATEGORIES, Feature
from app.model.signature import DTYPES, TensorSpec
from tests.task_models import CITIES, MIXED, MIXED_INPUTS, MIXED_SAMPLE

INTEGERS = [f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)]
FLOATS = ["FP16", "FP32", "FP64"]
HELD = [
    *(("number", datatype) for datatype in FLOATS),
    *(("integer", datatype) for datatype in [*FLOATS, *INTEGERS]),
    *(("boolean", datatype) for datatype in [*FLOATS, *INTEGERS, "BOOL"]),
    *(("category", datatype) for datatype in [*FLOATS, *INTEGERS, "BYTES"]),
]
CATEGORIES = ("Oslo", "Zürich", "")
NULL_AS = {"i": 77, "u": 77, "b": False, "O": "no city"}

values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.sampled_from([2**11, 2**11 + 1, 2**24, 2**24 + 1, 2**53 + 1, 2**63 - 1, 2**64 - 1])
    | st.floats()
    | st.floats(width=16)
    | st.integers(-300, 300).map(float)
    | st.sampled_from([*CATEGORIES, "oslo", "\ud800"])
    | st.text(max_size=3)
    | st.just([])
)


def encoder_of(
    kind: Any, datatype: str, *, nullable: bool = False, unknown: Any = "refuse", column: Any = 0
) -> FeatureEncoder:
    """Return the encoder of one feature "x" in a tensor "t"."""
    dtype = DTYPES[datatype]
    feature = Feature(
        "x",
        kind=kind,
        tensor="t",
        column=column,
        nullable=nullable,
        null_as=NULL_AS.get(dtype.kind) if nullable else None,
        categories=CATEGORIES if kind == "category" else (),
        unknown=unknown,
    )
    return FeatureEncoder(
        [feature], [TensorSpec("t", datatype, (-1,) if column is None else (-1, 1))]
    )


def is_acceptable(kind: str, datatype: str, value: Any, *, nullable: bool) -> bool:
    """Say what the contract accepts, in other words than the code does."""
    if value is None:
        return nullable
    if kind == "category":
        null = [NULL_AS["O"]] if nullable and datatype == "BYTES" else []
        return isinstance(value, str) and value in [*CATEGORIES, *null]
    if kind == "boolean":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (is_integer if kind == "integer" else is_number)(datatype, value)


def is_integer(datatype: str, value: float) -> bool:
    if not math.isfinite(value) or value != int(value):
        return False
    dtype = DTYPES[datatype]
    if dtype.kind == "f":
        return abs(int(value)) <= LARGEST_EXACT[datatype]
    return bool(np.iinfo(dtype).min <= int(value) <= np.iinfo(dtype).max)


def is_number(datatype: str, value: float) -> bool:
    try:
        with np.errstate(over="ignore"):
            return bool(np.isfinite(np.float64(float(value)).astype(DTYPES[datatype])))
    except OverflowError:
        return False


@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize(("kind", "datatype"), HELD)
@settings(max_examples=40)
@given(value=values)
def test_exactly_the_values_of_a_feature_become_its_column_and_come_back(
    kind: str, datatype: str, nullable: bool, value: Any
) -> None:
    encoder = encoder_of(kind, datatype, nullable=nullable)
    if not is_acceptable(kind, datatype, value, nullable=nullable):
        with pytest.raises(InvalidFeatures) as refusal:
            encoder.encode({"x": value})
        assert [fault.path for fault in refusal.value.faults] == [("x",)]
        assert refusal.value.faults[0].detail
        return
    rows = encoder.encode({"x": value})
    assert (rows["t"].dtype, rows["t"].shape) == (DTYPES[datatype], (1, 1))
    back = encoder.sample(rows, 0)["x"]
    if nullable and value == NULL_AS.get(DTYPES[datatype].kind) and kind != "category":
        assert back is None  # the network is told of null by this value
    elif nullable and value == NULL_AS["O"]:
        assert back is None
    elif kind == "number":
        assert back is value is None or back == float(np.float64(value).astype(DTYPES[datatype]))
    else:
        assert back == value
        assert type(back) is (int if kind == "integer" and value is not None else type(value))


@settings(max_examples=15)
@given(data=st.data())
@pytest.mark.parametrize(("kind", "datatype"), [each for each in HELD if each[0] != "category"])
def test_a_batch_is_refused_for_the_rows_that_are_refused_alone(
    kind: str, datatype: str, data: st.DataObject
) -> None:
    sent = data.draw(st.lists(values, min_size=1, max_size=6))
    encoder = encoder_of(kind, datatype, column=None)
    faulty = [i for i, v in enumerate(sent) if not is_acceptable(kind, datatype, v, nullable=False)]
    samples = [{"x": value} for value in sent]
    if faulty:
        with pytest.raises(InvalidFeatures) as refusal:
            encoder.encode_batch(samples)
        assert [fault.path for fault in refusal.value.faults] == [(i, "x") for i in faulty]
    else:
        together = encoder.encode_batch(samples)["t"]
        assert together.shape == (len(sent),)
        alone = [encoder.encode(sample)["t"] for sample in samples]
        np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("datatype", INTEGERS)
def test_integers_are_exact_to_the_last_one_of_their_datatype(datatype: str) -> None:
    encoder, bounds = encoder_of("integer", datatype), np.iinfo(DTYPES[datatype])
    for value in (int(bounds.min), int(bounds.max), int(bounds.max) - 1):
        assert encoder.sample(encoder.encode({"x": value}), 0) == {"x": value}
    for value in (int(bounds.min) - 1, int(bounds.max) + 1):
        with pytest.raises(InvalidFeatures) as refusal:
            encoder.encode({"x": value})
        wanted = f"must be from {int(bounds.min):,} to {int(bounds.max):,}"
        assert refusal.value.faults[0].detail == wanted


@pytest.mark.parametrize(
    ("datatype", "value", "said"),
    [
        ("FP16", 65520, "must be finite as a 16-bit float (less than 65520 in magnitude)"),
        ("FP32", 2.0**128, "must be finite as a 32-bit float (less than 3.4028236e38"),
        ("FP64", 10**400, "must be finite as a 64-bit float"),
        ("FP64", math.inf, "must be finite as a 64-bit float"),
    ],
)
def test_a_number_beyond_its_datatype_is_told_the_limit(
    datatype: str, value: float, said: str
) -> None:
    with pytest.raises(InvalidFeatures) as refusal:
        encoder_of("number", datatype).encode({"x": value})
    assert refusal.value.faults[0].detail.startswith(said)


@pytest.mark.parametrize("datatype", FLOATS)
def test_an_integer_that_a_float_would_round_is_refused(datatype: str) -> None:
    encoder, largest = encoder_of("integer", datatype), LARGEST_EXACT[datatype]
    assert encoder.sample(encoder.encode({"x": -largest}), 0) == {"x": -largest}
    with pytest.raises(InvalidFeatures) as refusal:
        encoder.encode({"x": largest + 1})
    said = refusal.value.faults[0].detail
    assert said.startswith(f"must be at most {largest:,} in magnitude, beyond which the model's")


def test_a_nan_is_no_null_wherever_null_is_accepted() -> None:
    for kind, datatype in HELD:
        with pytest.raises(InvalidFeatures):
            encoder_of(kind, datatype, nullable=True).encode({"x": math.nan})


def test_null_becomes_what_the_manifest_says_where_there_is_no_nan() -> None:
    for kind, datatype in HELD:
        encoder = encoder_of(kind, datatype, nullable=True)
        found = encoder.encode({"x": None})["t"].item()
        dtype = DTYPES[datatype]
        assert math.isnan(found) if dtype.kind == "f" else found == NULL_AS[dtype.kind]
        assert encoder.sample(encoder.encode({"x": None}), 0) == {"x": None}


def test_any_text_is_passed_on_where_the_network_knows_what_to_do() -> None:
    encoder = encoder_of("category", "BYTES", unknown="pass")
    assert encoder.encode({"x": "Atlantis"})["t"].tolist() == [["Atlantis"]]
    for value, said in (("\ud800", "must be valid Unicode"), (3, "must be a string, not a number")):
        with pytest.raises(InvalidFeatures) as refusal:
            encoder.encode({"x": value})
        assert refusal.value.faults[0].detail == said


def test_an_unknown_category_is_told_the_one_that_was_probably_meant() -> None:
    for datatype in ("BYTES", "INT32"):
        with pytest.raises(InvalidFeatures) as refusal:
            encoder_of("category", datatype).encode({"x": "Zurich"})
        said = refusal.value.faults[0].detail
        assert said.startswith("is not one of the feature's values; did you mean 'Zürich'")
    with pytest.raises(InvalidFeatures) as refusal:
        encoder_of("category", "BYTES").encode({"x": "Rio"})
    assert refusal.value.faults[0].detail.endswith(": ['Oslo', 'Zürich', '']")


@pytest.mark.parametrize("known", [900, MAX_CATEGORIES])
def test_suggestions_for_unknown_categories_cost_a_bounded_number_of_comparisons(
    monkeypatch: pytest.MonkeyPatch, known: int
) -> None:
    compared: list[int] = []

    def search(name: str, possibilities: list[str], **_: Any) -> list[str]:
        compared.append(len(possibilities))
        return []

    monkeypatch.setattr("app.documents.suggestions.difflib.get_close_matches", search)
    feature = Feature(
        "x", kind="category", tensor="t", categories=tuple(f"city {i}" for i in range(known))
    )
    encoder = FeatureEncoder([feature], [TensorSpec("t", "BYTES", (-1,))])
    with pytest.raises(InvalidFeatures) as refusal:
        encoder.encode_batch([{"x": f"town {i}"} for i in range(100)])
    assert len(refusal.value.faults) == MAX_FAULTS == 100
    assert sum(compared) <= 1_000


def test_categories_of_numbers_are_their_positions_and_of_strings_themselves() -> None:
    for datatype in ("INT8", "UINT64", "FP16"):
        rows = encoder_of("category", datatype).encode_batch([{"x": c} for c in CATEGORIES])
        assert rows["t"].tolist() == [[0], [1], [2]]
    rows = encoder_of("category", "BYTES").encode_batch([{"x": c} for c in CATEGORIES])
    assert rows["t"].tolist() == [[c] for c in CATEGORIES]


@given(st.permutations(MIXED), st.permutations(MIXED_INPUTS), st.permutations([*MIXED_SAMPLE]))
def test_features_in_any_order_fill_several_tensors(
    features: list[Feature], inputs: list[TensorSpec], names: list[str]
) -> None:
    encoder = FeatureEncoder(features, inputs)
    other = MIXED_SAMPLE | {"city": "New York", "floor": None, "comment": None, "income": None}
    samples = [{name: sample[name] for name in names} for sample in (MIXED_SAMPLE, other)]
    rows = encoder.encode_batch(samples)
    assert {name: array.tolist() for name, array in rows.items() if name != "numbers"} == {
        "counts": [2, 2],
        "codes": [[1, 4], [1, -1]],
        "flags": [[True], [True]],
        "texts": [["Oslo", "fine"], ["New York", ""]],
        "precise": [1_700_000_000.25] * 2,
    }
    np.testing.assert_array_equal(rows["numbers"], [[40, 1000.5], [40, np.nan]])
    for spec in inputs:
        assert rows[spec.name].dtype == DTYPES[spec.datatype]
        assert spec.accepts(rows[spec.name].shape)
    assert [encoder.sample(rows, i) for i in (0, 1)] == samples
    assert encoder.places["comment"] == (next(i for i in inputs if i.name == "texts"), 1)


def test_each_wrong_value_of_a_mixed_sample_is_told_by_its_place() -> None:
    encoder = FeatureEncoder(MIXED, MIXED_INPUTS)
    wrong = MIXED_SAMPLE | {
        "city": "Atlantis", "age": "40", "plan": None, "member": 1, "visits": 2.5,
        "comment": 7, "since": 1e400, "floor": 2**31,
    }  # fmt: skip
    with pytest.raises(InvalidFeatures) as refusal:
        encoder.encode_batch([MIXED_SAMPLE, wrong])
    faults = {fault.path: fault.detail for fault in refusal.value.faults}
    assert faults == {
        (1, "city"): f"is not one of the feature's values: {list(CITIES)}",
        (1, "age"): "must be a number, not a string",
        (1, "plan"): "must be a string; null is not accepted here",
        (1, "member"): "must be true or false, not a number",
        (1, "visits"): "must be an integer",
        (1, "comment"): "must be a string, not a number",
        (1, "since"): "must be finite as a 64-bit float",
        (1, "floor"): "must be from -2,147,483,648 to 2,147,483,647",
    }


def test_rows_that_differ_in_one_value_of_any_tensor_have_other_keys() -> None:
    encoder = FeatureEncoder(MIXED, MIXED_INPUTS)
    changes: list[dict[str, Any]] = [
        {}, {"city": "New York"}, {"comment": "fine!"}, {"plan": "pro"}, {"member": False},
        {"visits": 3}, {"since": 1_700_000_000.5}, {"income": None}, {"floor": None},
    ]  # fmt: skip
    keys = [encoder.key(encoder.encode(MIXED_SAMPLE | change)) for change in changes]
    assert len(set(keys)) == len(changes)
    assert keys[0] == encoder.key(encoder.encode(dict(MIXED_SAMPLE)))


def test_the_key_of_a_row_is_short_and_its_own_however_long_its_text() -> None:
    """A cache holds many: of strings of a megabyte each, they would be gigabytes."""
    encoder = FeatureEncoder(MIXED, MIXED_INPUTS)
    texts = ["a" * 10**6, "a" * (10**6 - 1) + "b", "a" * 99, "a" * 100, "a" * 101, "é" * 10**6]
    keys = [encoder.key(encoder.encode(MIXED_SAMPLE | {"comment": text})) for text in texts]
    assert len(set(keys)) == len(texts)
    assert all(len(repr(key)) < 1000 for key in keys)


def test_values_out_of_range_are_counted_in_every_tensor() -> None:
    encoder = FeatureEncoder(MIXED, MIXED_INPUTS)
    samples = [MIXED_SAMPLE | {"age": age, "visits": visits} for age, visits in ((17, 5), (91, -1))]
    assert encoder.out_of_range(encoder.encode_batch(samples)) == {"age": 2, "visits": 1}
    assert encoder.out_of_range(encoder.encode(samples[0])) == {"age": 1}
    assert encoder.out_of_range(encoder.no_rows()) == {}


def test_a_range_beyond_the_datatype_contains_all_of_it() -> None:
    feature = Feature("x", minimum=-1e9, maximum=1e9, tensor="t")
    encoder = FeatureEncoder([feature], [TensorSpec("t", "FP16", (-1,))])
    assert encoder.out_of_range(encoder.encode({"x": 65504})) == {}


def test_no_samples_are_empty_tensors_of_the_right_form() -> None:
    rows = FeatureEncoder(MIXED, MIXED_INPUTS).encode_batch([])
    assert {name: array.shape for name, array in rows.items()} == {
        "numbers": (0, 2), "counts": (0,), "codes": (0, 2), "flags": (0, 1), "texts": (0, 2),
        "precise": (0,),
    }  # fmt: skip


def test_only_a_matrix_of_numbers_in_their_order_is_one() -> None:
    pair = (Feature("a", column=0), Feature("b", column=1))
    one = (TensorSpec("features", "FP32", (-1, 2)),)
    assert FeatureEncoder(pair, one).is_matrix
    assert not FeatureEncoder(pair[::-1], one).is_matrix
    assert not FeatureEncoder((pair[0], replace(pair[1], kind="integer")), one).is_matrix
    assert not FeatureEncoder(pair, (TensorSpec("features", "FP16", (-1, 2)),)).is_matrix
    assert not FeatureEncoder(MIXED, MIXED_INPUTS).is_matrix


@pytest.mark.parametrize("width", [1, 2, 50])
def test_columns_are_taken_by_their_index_whatever_the_order_of_the_features(width: int) -> None:
    features = [Feature(f"f{i}", column=i) for i in range(width)]
    random.Random(3).shuffle(features)
    encoder = FeatureEncoder(features, [TensorSpec("features", "FP64", (-1, width))])
    samples = [{f"f{i}": row * 100 + i for i in range(width)} for row in range(3)]
    wanted = [[row * 100 + i for i in range(width)] for row in range(3)]
    assert encoder.encode_batch(samples)["features"].tolist() == wanted
