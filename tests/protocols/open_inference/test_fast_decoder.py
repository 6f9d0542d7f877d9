"""Fast decoding gives what decoding in full gives, or nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.model.encoder import FeatureEncoder
from app.model.features import Feature
from app.model.signature import Array, TensorSpec
from app.protocols.open_inference.errors import InvalidRequest
from app.protocols.open_inference.fast_decoder import FastDecoder
from app.protocols.open_inference.feature_inputs import FeatureInputs
from app.protocols.open_inference.request import InferenceRequest, decode_request
from app.protocols.raw_json import NotJson

NAMES = ["a", "é b", "c"]
FEATURES = [Feature("a"), Feature("é b", nullable=True), Feature("c")]
ENCODERS = {
    datatype: FeatureEncoder(FEATURES, [TensorSpec("features", datatype, (-1, 3))])
    for datatype in ("FP32", "FP64")
}

numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -0.0, 2**53 + 1, 2**63, 2**64, 2**128 - 2**103, float(2**128 - 2**104)]),
)
integers = st.one_of(
    st.integers(-200, 200),
    st.integers(-(2**64), 2**65),
    st.sampled_from([2**24 + 1, 2**53, 2**53 + 1, 2**54 + 2**30 + 1, 2**63, 2**64, 1.0]),
)
values = st.lists(numbers | st.none(), max_size=6) | st.lists(
    numbers | st.none() | st.booleans() | st.text(max_size=2) | st.lists(numbers, max_size=3),
    max_size=6,
)
parameters = st.sampled_from(
    [None, {}, {"content_type": "np"}, {"binary_data_size": 4}, {"shared_memory_region": "x"}]
)
datatypes = st.sampled_from(["FP32", "FP64", "FP16", "INT64", "BOOL", "fp32"])
shapes = st.sampled_from(
    [[1, 3], [2, 3], [1], [1, 1], [2], [2, 1], [0, 3], [3], [-1, 3], [1, 3, 1]]
)


@st.composite
def inputs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Inputs that are mostly valid: the tensor, or the features in some order."""
    rows, datatype = draw(st.integers(0, 3)), draw(st.sampled_from(["FP32", "FP64"]))
    if draw(st.booleans()):
        flat = draw(st.lists(numbers | st.none(), min_size=3 * rows, max_size=3 * rows))
        tensors = [{"name": "features", "shape": [rows, 3], "datatype": datatype, "data": flat}]
    else:
        tensors = []
        for name in draw(st.permutations(NAMES)):
            kind = draw(st.sampled_from([datatype, datatype, "INT8", "INT64", "UINT64"]))
            number = integers if "INT" in kind else numbers
            data = draw(st.lists(number, min_size=rows, max_size=rows))
            tensors.append({"name": name, "shape": [rows, 1], "datatype": kind, "data": data})
    if draw(st.integers(0, 2)) == 0:
        tensor = draw(st.sampled_from(tensors))
        tensor |= draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "name": st.sampled_from(["features", *NAMES, "d"]),
                    "shape": shapes,
                    "datatype": datatypes,
                    "data": values,
                    "parameters": parameters,
                },
            )
        )
        tensors = tensors * draw(st.sampled_from([1, 1, 1, 2]))
    return tensors


documents = st.fixed_dictionaries(
    {"inputs": inputs()},
    optional={
        "id": st.sampled_from(["", "x", None, 7]),
        "parameters": st.sampled_from([None, {"binary_data_output": True}, {"sequence_id": 3}, 1]),
        "outputs": st.sampled_from(
            [
                None,
                [],
                [{"name": "x"}, {"name": "x"}],
                [{"name": "x", "parameters": {"binary_data": True, "classification": 2}}],
                [{"name": "x", "parameters": {"classification": 0}}],
            ]
        ),
        "more": st.sampled_from([None, [1], "é"]),
    },
)


def in_full(encoder: FeatureEncoder, body: bytes) -> tuple[InferenceRequest, Array]:
    reader = FeatureInputs(encoder)
    request = decode_request(body, None, [each.spec for each in encoder.tensors], reader.max_inputs)
    reader.count_rows(request.inputs)
    return request, reader.read(request.inputs)["features"]


def parts(request: InferenceRequest) -> tuple[Any, ...]:
    return request.id, request.is_binary, request.outputs


def assert_same(encoder: FeatureEncoder, body: bytes) -> None:
    try:
        expected = in_full(encoder, body)
    except (InvalidRequest, NotJson) as error:
        try:
            assert FastDecoder(encoder).decode(body) is None
        except InvalidRequest as sooner:
            assert sooner.faults == getattr(error, "faults", None)
        return
    request = FastDecoder(encoder).decode(body)
    if request is None:
        return
    assert request.rows is not None
    (rows,) = request.rows.values()
    full, array = expected
    assert parts(request) == parts(full)
    assert (rows.dtype, rows.shape) == (array.dtype, array.shape)
    there = ~np.isnan(array)
    assert np.array_equal(there, ~np.isnan(rows))
    assert rows[there].tobytes() == array[there].tobytes()  # -0.0 is not 0.0


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(["FP32", "FP64"]), documents, st.booleans())
@example("FP32", {"inputs": []}, True)
@example("FP32", [], True)
def test_what_is_decoded_is_what_decoding_in_full_gives(
    datatype: str, document: Any, is_ascii: bool
) -> None:
    body = json.dumps(document, ensure_ascii=is_ascii).encode()
    assert_same(ENCODERS[datatype], body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":' + b"[" * 3000,
        b'{"more":' + b"[" * 1900 + b"]" * 1900 + b',"inputs":[]}',
        b'{"more":"\xff","inputs":[{"name":"features","shape":[1,3],"datatype":"FP32",'
        b'"data":[1,2,3]}]}',
        b'{"inputs":[{"name":"features","shape":[1,3],"datatype":"FP32","data":[1,2,1e999]}]}',
        b'{"inputs":[{"name":"features","shape":[1,3],"datatype":"FP32","data":[1,2,NaN]}]}',
        b'{"inputs":[{"name":"features","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]} x',
    ],
)
def test_what_is_no_json_is_not_decoded(body: bytes) -> None:
    assert FastDecoder(ENCODERS["FP32"]).decode(body) is None
    assert_same(ENCODERS["FP32"], body)


@pytest.mark.parametrize("rows", [1, 3])
def test_usual_requests_are_decoded(rows: int) -> None:
    tensor = {"name": "features", "shape": [rows, 3], "datatype": "FP32", "data": [1.5, None, 3]}
    tensor["data"] *= rows
    columns = [
        {"name": name, "shape": shape, "datatype": datatype, "data": [value] * rows}
        for name, shape, datatype, value in (
            ("c", [rows], "INT64", 3),
            ("é b", [rows, 1], "FP32", None),
            ("a", [rows], "FP64", 1.5),
        )
    ]
    for sent in ([tensor], columns):
        request = FastDecoder(ENCODERS["FP32"]).decode(json.dumps({"inputs": sent}).encode())
        assert request is not None and request.rows is not None
        array = request.rows["features"]
        assert array.flags.writeable  # as torch wants it
        assert array[:, [0, 2]].tolist() == [[1.5, 3]] * rows and np.isnan(array[:, 1]).all()


def test_what_isnt_a_small_matrix_of_floats_is_decoded_in_full() -> None:
    body = json.dumps(
        {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [1]}]}
    ).encode()
    integers = FeatureEncoder([Feature("x", tensor="x")], [TensorSpec("x", "INT64", (-1, 1))])
    assert FastDecoder(integers).decode(body) is None
    floats = FeatureEncoder([Feature("x", tensor="x")], [TensorSpec("x", "FP32", (-1, 1))])
    body = body.replace(b"INT64", b"FP32")
    assert FastDecoder(floats).decode(body) is not None
    assert FastDecoder(floats).decode(body + b" " * 4096) is None
