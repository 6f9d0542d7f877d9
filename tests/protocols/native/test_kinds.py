"""Features of all kinds, in tensors of all datatypes: both ways of decoding find the same, and it
is what was sent.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError

from app.model.encoder import FeatureEncoder
from app.model.features import Feature
from app.model.signature import Tensors, TensorSpec
from app.protocols.native.schemas import RequestBody, make_request_bodies
from tests.protocols.native.test_fast_decoder import assert_same, by_schema
from tests.task_models import CITIES, MIXED, MIXED_INPUTS, MIXED_SAMPLE, PLANS

MANY = tuple(
    [Feature(f"n{i}", tensor="many", column=i) for i in range(70)]
    + [Feature("word", kind="category", tensor="word", unknown="pass")]
    + [Feature("whole", kind="integer", tensor="whole")]
)
"""Too many to be a Struct, so that only the slower decoder takes them."""
ENCODERS = {
    "mixed": FeatureEncoder(MIXED, MIXED_INPUTS),
    "many": FeatureEncoder(
        MANY,
        [
            TensorSpec("many", "FP64", (-1, 70)),
            TensorSpec("word", "BYTES", (-1, 1)),
            TensorSpec("whole", "INT64", (-1, 1)),
        ],
    ),
}
BODIES = {name: make_request_bodies(encoder, 3) for name, encoder in ENCODERS.items()}

integers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 5.0, 5.5, -0.0, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**31, 1e18, 1e300]),
    st.integers(-5, 200),
)
floats = st.floats(allow_nan=False, allow_infinity=False)
words = st.one_of(
    st.sampled_from([*CITIES, *PLANS, "oslo", "", "Zu\u0308rich"]), st.text(max_size=5)
)
by_kind: dict[str, st.SearchStrategy[Any]] = {
    "number": floats | integers,
    "integer": integers,
    "boolean": st.booleans(),
    "category": words,
}
anything = st.one_of(integers, floats, words, st.booleans(), st.none(), st.just([]), st.just({}))


def value_of(feature: Feature) -> st.SearchStrategy[Any]:
    values = by_kind[feature.kind]
    if feature.kind == "category" and feature.unknown == "refuse":
        values = st.one_of(st.sampled_from(feature.categories), values)
    return st.one_of(values, values, st.none() if feature.nullable else values, anything)


likely = st.fixed_dictionaries({feature.name: value_of(feature) for feature in MIXED})
valid = st.fixed_dictionaries(
    {
        "city": st.sampled_from(CITIES),
        "age": st.floats(width=32, allow_nan=False, allow_infinity=False),
        "plan": st.sampled_from(PLANS),
        "member": st.booleans(),
        "visits": st.integers(-(2**63), 2**63 - 1),
        "comment": st.none() | st.text(max_size=9),
        "income": st.none() | st.integers(-(2**24), 2**24),
        "since": floats,
        "floor": st.none() | st.integers(-(2**31), 2**31 - 1),
    }
)


def written(member: str, content: Any) -> bytes:
    return json.dumps({member: content}).encode()


def slow(kind: RequestBody, body: bytes) -> Tensors | None:
    return by_schema(kind, body)


@settings(max_examples=600)
@given(st.lists(st.one_of(likely, valid), max_size=3))
@example([MIXED_SAMPLE | {"visits": 2**63 - 1}])
@example([MIXED_SAMPLE | {"visits": 2.0**63}])
@example([MIXED_SAMPLE | {"visits": 5.5}])
@example([MIXED_SAMPLE | {"visits": 1e18}])
@example([MIXED_SAMPLE | {"comment": "\ud800"}])
def test_both_ways_of_decoding_agree(rows: list[dict[str, Any]]) -> None:
    kinds = BODIES["mixed"]
    bodies = [(kinds.batch, written("samples", rows))]
    bodies += [(kinds.predict, written("features", row)) for row in rows]
    for kind, body in bodies:
        accepted, loaded = kind.accept(body), slow(kind, body)
        assert (accepted is None) == (loaded is None)
        if accepted is not None and loaded is not None:
            assert_same(accepted, loaded)


@given(valid)
def test_what_was_sent_is_in_the_tensors(sample: dict[str, Any]) -> None:
    """Exactly: integers to 64 bits, null as its feature says."""
    encoder = ENCODERS["mixed"]
    rows = BODIES["mixed"].predict.load(written("features", sample))
    null_of = {"comment": "", "floor": -1}
    found = encoder.sample(rows, 0)
    for name, value in sample.items():
        if value is None or (name in null_of and value == null_of[name]):
            assert found[name] is None
        elif name == "age":
            assert found[name] == float(np.float32(value))
        else:
            assert found[name] == value
            assert type(found[name]) is type(value) or name in ("income", "since")


@given(valid)
def test_a_row_with_a_name_twice_is_read_as_exactly(sample: dict[str, Any]) -> None:
    """The slow way, name by name: the last value counts."""
    twice = b'{"features":{"visits":"x",' + json.dumps(sample).encode()[1:] + b"}"
    kind = BODIES["mixed"].predict
    assert_same(kind.load(twice), kind.load(written("features", sample)))


@given(st.lists(floats, min_size=70, max_size=70), st.text(max_size=5), integers)
def test_a_wide_model_reads_its_values_as_exactly(
    numbers: list[float], word: str, whole: Any
) -> None:
    sample = {f"n{i}": value for i, value in enumerate(numbers)} | {"word": word, "whole": whole}
    encoder, kind = ENCODERS["many"], BODIES["many"].predict
    body = written("features", sample)
    assert kind.accept(body) is None
    is_valid = whole == int(whole) and -(2**63) <= whole < 2**63
    found = slow(kind, body)
    assert (found is not None) == is_valid
    if found is not None:
        assert encoder.sample(found, 0) == sample


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("city", "oslo", "is not one of the feature's values; did you mean 'Oslo'"),
        ("city", "Zurich", "did you mean 'Zürich'"),
        ("city", "Atlantis", "is not one of the feature's values: ['Oslo', 'Zürich', 'New York']"),
        ("plan", "prö", "did you mean 'pro'"),
        ("plan", 1, "must be a string, not a number"),
        ("city", None, "must be a string; null is not accepted here"),
        ("member", 1, "must be true or false, not a number"),
        ("member", "true", "must be true or false, not a string"),
        ("visits", 5.5, "must be an integer"),
        ("visits", True, "must be an integer, not a boolean"),
        ("visits", 2**63, "must be from -9,223,372,036,854,775,808 to 9,223,372,036,854,775,807"),
        ("floor", 2**31, "must be from -2,147,483,648 to 2,147,483,647"),
        ("age", 1e39, "must be finite as a 32-bit float"),
        ("comment", [], "must be a string, not an array"),
    ],
)
def test_a_fault_names_the_feature_and_what_it_may_be(name: str, value: Any, said: str) -> None:
    for kind, member in ((BODIES["mixed"].predict, "features"), (BODIES["mixed"].batch, "samples")):
        sample = MIXED_SAMPLE | {name: value}
        body = written(member, sample if member == "features" else [MIXED_SAMPLE, sample])
        with pytest.raises(ValidationError) as refusal:
            kind.load(body)
        (fault,) = refusal.value.messages[member]  # type: ignore[index]
        assert fault.path[-1] == name
        assert said in fault.detail


def test_an_unknown_value_is_passed_on_where_the_network_knows_what_to_do() -> None:
    text = "Überraschung " * 50_000
    rows = BODIES["mixed"].predict.load(written("features", MIXED_SAMPLE | {"comment": text}))
    assert rows["texts"].tolist() == [["Oslo", text]]


@pytest.mark.parametrize("value", ["true", "1", '"x"', "[1]", "null"])
def test_a_number_that_is_none_is_refused_beside_strings(value: str) -> None:
    """The wide decoder takes any of its types for any feature, so each is looked at again."""
    sample = {f"n{i}": 1.5 for i in range(70)} | {"word": "a", "whole": 1}
    body = json.dumps({"features": sample}).replace('"a"', value).encode()
    found = slow(BODIES["many"].predict, body)
    assert (found is not None) == (value == '"x"')
