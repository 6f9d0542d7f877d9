"""Fast decoding gives what the schemas give, or nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError

from app.model.encoder import FeatureEncoder
from app.model.errors import BatchTooLarge
from app.model.features import Feature
from app.model.signature import Tensors
from app.protocols.native.fast_decoder import FastDecoder
from app.protocols.native.schemas import RequestBody, make_request_bodies
from app.protocols.raw_json import NotJson

ENCODER = FeatureEncoder([Feature("a"), Feature("é b", nullable=True), Feature("c")])
BODIES = make_request_bodies(ENCODER, 3)

numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -0.0, 2**53 + 1, 2**63, 2**64, 2**128 - 2**103, float(2**128 - 2**104)]),
)
anything = st.one_of(
    numbers, st.none(), st.booleans(), st.text(max_size=3), st.sampled_from([[], {}, 10**400])
)
valid = st.fixed_dictionaries({"a": numbers, "é b": numbers | st.none(), "c": numbers})
samples = st.one_of(
    valid,
    valid.map(lambda sample: dict(reversed(sample.items()))),
    st.dictionaries(st.sampled_from(["a", "é b", "c", "d", ""]), anything),
    anything,
)
documents = st.one_of(
    samples.map(lambda s: {"features": s}),
    st.lists(samples, max_size=4).map(lambda s: {"samples": s}),
    st.fixed_dictionaries({"features": valid, "samples": st.lists(valid)}),
    anything,
)
written = st.one_of(
    documents.map(lambda d: json.dumps(d).encode()),
    documents.map(lambda d: json.dumps(d, ensure_ascii=False, indent=2).encode()),
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A body as it was written, or with a byte or two that were not meant."""
    body = bytearray(draw(written))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(body)))
        if draw(st.booleans()):
            body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=2))
        else:
            body[at:at] = draw(
                st.sampled_from([b"1e9", b"-", b".0", b" ", b'"a":1,', b"null", b"0"])
            )
    return bytes(body)


def by_schema(kind: RequestBody, body: bytes) -> Tensors | None:
    try:
        return RequestBody(lambda _: None, kind.schema).load(body)
    except (ValidationError, NotJson, BatchTooLarge):
        return None


def assert_same(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert (array.dtype, array.shape) == (other[name].dtype, other[name].shape)
        if array.dtype.kind != "f":
            assert array.tolist() == other[name].tolist()
            continue
        assert np.array_equal(np.isnan(array), np.isnan(other[name]))
        there = ~np.isnan(array)
        assert array[there].tobytes() == other[name][there].tobytes()  # -0.0 is not 0.0


@settings(max_examples=1500, deadline=None)
@given(bodies())
@example(b'{"features":{"a":1,"\\u00e9 b":2,"c":3}}')
@example(b'{"features":{"a":1,"a":2,"\xc3\xa9 b":2,"c":3}}')
@example(b'{"features":{"a":1,"\xc3\xa9 b":2,"c":3},"features":{"a":4,"\xc3\xa9 b":2,"c":3}}')
@example(b'\xef\xbb\xbf{"samples":[]}')
@example(b'{"samples":[]}\x00')
@example(b'{"samples":[{"a":1,"\xff b":2,"c":3}]}')
@example(b'{"samples":[' + b"[" * 5000)
def test_what_is_accepted_is_what_the_schemas_give(body: bytes) -> None:
    for kind in (BODIES.predict, BODIES.batch):
        accepted, loaded = kind.accept(body), by_schema(kind, body)
        if accepted is not None:
            assert loaded is not None
            assert_same(accepted, loaded)


@given(st.lists(valid, max_size=3))
def test_what_is_valid_and_fits_float32_is_accepted(rows: list[Any]) -> None:
    body = json.dumps({"samples": rows}).encode()
    accepted, loaded = BODIES.batch.accept(body), by_schema(BODIES.batch, body)
    assert (accepted is None) == (loaded is None)
    for row in rows:
        single = json.dumps({"features": row}).encode()
        accepted, loaded = BODIES.predict.accept(single), by_schema(BODIES.predict, single)
        assert (accepted is None) == (loaded is None)


def test_more_rows_than_are_allowed_are_the_schemas_to_refuse() -> None:
    body = json.dumps({"samples": [{"a": 1, "é b": None, "c": 2}] * 4}).encode()
    assert BODIES.batch.accept(body) is None
    with pytest.raises(BatchTooLarge):
        BODIES.batch.load(body)


@pytest.mark.parametrize(
    "names", [[f"feature_{i}" for i in range(65)], ['a"b', "c"], ["a\\b", "c"], ["a\nb", "c"]]
)
def test_a_model_that_has_no_fast_acceptance_is_served_all_the_same(names: list[str]) -> None:
    encoder = FeatureEncoder([Feature(name) for name in names])
    body = json.dumps({"features": dict.fromkeys(names, 1.5)}).encode()
    assert FastDecoder(encoder, 10).row(body) is None
    assert FastDecoder(encoder, 10).rows(b'{"samples":[]}') is None
    assert make_request_bodies(encoder, 10).predict.load(body)["features"].tolist() == [
        [1.5] * len(names)
    ]


def test_the_rows_can_be_written_to_as_torch_wants_it() -> None:
    body = b'{"features":{"a":1,"\xc3\xa9 b":2,"c":3}}'
    assert BODIES.predict.load(body)["features"].flags.writeable
