"""The rows of a model with features: from its tensors, or from one input for each feature."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from app.model.encoder import FeatureEncoder
from app.model.features import Feature
from app.model.signature import TensorSpec
from app.protocols.open_inference.datatypes import DATATYPES
from app.protocols.open_inference.errors import InvalidRequest
from app.protocols.open_inference.feature_inputs import FeatureInputs
from app.protocols.open_inference.request import InputTensor, decode_request
from tests.task_models import MIXED, MIXED_INPUTS, MIXED_SAMPLE


def reader(*names: str, nullable: bool = False) -> FeatureInputs:
    """Return what reads the rows of a model whose features are numbers of one matrix."""
    return FeatureInputs(FeatureEncoder([Feature(name, nullable=nullable) for name in names]))


def reader_of(spec: TensorSpec, *features: Feature) -> FeatureInputs:
    """Return what reads the rows of a model with one input, whose columns are ``features``."""
    placed = [replace(feature, tensor=spec.name) for feature in features]
    return FeatureInputs(FeatureEncoder(placed, [spec]))


def sent(name: str, datatype: str, data: Sequence[Any], *shape: int) -> InputTensor:
    """Return an input as a request has it, in binary: so it may hold NaN and infinities."""
    body = np.array(data, dtype=DATATYPES[datatype].dtype)
    text = {"name": name, "shape": shape or [len(data)], "datatype": datatype}
    if datatype == "BYTES":
        head = json.dumps({"inputs": [text | {"data": data}]}).encode()
        (tensor,) = decode_request(head, None, (), 10).inputs
        return tensor
    head = json.dumps({"inputs": [text | {"parameters": {"binary_data_size": body.nbytes}}]})
    (tensor,) = decode_request(head.encode() + body.tobytes(), len(head), (), 10).inputs
    return tensor


def read(inputs: FeatureInputs, *tensors: InputTensor) -> dict[str, Any]:
    inputs.count_rows(tensors)
    return {name: array.tolist() for name, array in inputs.read(tensors).items()}


def refusal(inputs: FeatureInputs, *tensors: InputTensor) -> str:
    with pytest.raises(InvalidRequest) as refused:
        read(inputs, *tensors)
    return refused.value.faults[0].detail


def body_of_one(body: bytes, width: int, json_bytes: int = 0) -> tuple[InputTensor, ...]:
    specs = (TensorSpec("features", "FP32", (-1, width)),)
    return decode_request(body, json_bytes, specs, 10).inputs


def test_rows_in_binary_are_the_bytes_of_the_body() -> None:
    body = np.arange(6, dtype="<f4").tobytes()
    inputs = body_of_one(body, 3)
    some = reader("a", "b", "c")
    assert some.count_rows(inputs) == 2
    rows = some.read(inputs)["features"]
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert np.shares_memory(rows, np.frombuffer(body, dtype=np.uint8))


@pytest.mark.parametrize("padding", range(4))
def test_a_runtime_gets_rows_that_are_aligned(padding: int) -> None:
    """Wherever in the body they begin, behind JSON of any length."""
    data = np.arange(6, dtype="<f4").tobytes()
    text = b'{"inputs":[{"name":"features","shape":[2,3],"datatype":"FP32",'
    text += b'"parameters":{"binary_data_size":24}}]}' + b" " * padding
    body = text + data
    rows = reader("a", "b", "c").read(body_of_one(body, 3, len(text)))["features"]
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert rows.flags.aligned
    assert rows.flags.c_contiguous
    is_view = np.shares_memory(rows, np.frombuffer(body, dtype=np.uint8))
    assert is_view == (len(text) % 4 == 0)


def test_a_feature_may_be_called_as_the_tensor_is() -> None:
    only, first = reader("features"), reader("features", "b")
    assert read(only, sent("features", "FP64", [1, 2])) == {"features": [[1], [2]]}
    assert read(only, sent("features", "FP32", [1, 2])) == {"features": [[1], [2]]}
    columns = sent("b", "FP64", [3, 4]), sent("features", "FP64", [1, 2])
    assert read(first, *columns) == {"features": [[1, 3], [2, 4]]}
    matrix = sent("features", "FP32", [1, 3, 2, 4], 2, 2)
    assert read(first, matrix) == read(first, *columns)


def test_not_a_number_is_null_where_null_is_accepted() -> None:
    nullable, other = reader("a", nullable=True), reader("a")
    for datatype in ("FP16", "FP32", "FP64"):
        (row,) = read(nullable, sent("a", datatype, [np.nan]))["features"]
        assert np.isnan(row)
        assert "null (NaN) is not accepted for 'a'" in refusal(other, sent("a", datatype, [np.nan]))
        assert "finite as a 32-bit" in refusal(nullable, sent("a", datatype, [np.inf]))


@pytest.mark.parametrize("datatype", [name for name, each in DATATYPES.items() if each.is_number])
def test_a_number_comes_in_any_datatype_of_numbers(datatype: str) -> None:
    if datatype != "BF16":
        assert read(reader("a"), sent("a", datatype, [0, 100])) == {"features": [[0], [100]]}


def integer(datatype: str, **more: Any) -> FeatureInputs:
    return reader_of(TensorSpec("x", datatype, (-1, 1)), Feature("n", kind="integer", **more))


@pytest.mark.parametrize(
    ("target", "datatype", "value", "is_accepted"),
    [
        ("INT64", "INT64", 2**63 - 1, True),
        ("INT64", "UINT64", 2**63 - 1, True),
        ("INT64", "UINT64", 2**63, False),
        ("INT64", "FP64", 2.0**63, False),
        ("INT64", "FP64", -(2.0**63), True),
        ("INT64", "FP64", 5.0, True),
        ("INT64", "FP32", 5.5, False),
        ("INT64", "FP64", np.inf, False),
        ("INT64", "FP64", np.nan, False),
        ("UINT64", "UINT64", 2**64 - 1, True),
        ("UINT64", "FP64", 2.0**64, False),
        ("UINT64", "INT8", -1, False),
        ("UINT8", "INT16", 255, True),
        ("UINT8", "INT16", 256, False),
        ("UINT8", "FP16", 255, True),
        ("INT32", "INT64", -(2**31), True),
        ("INT32", "INT64", -(2**31) - 1, False),
        ("FP32", "INT32", 2**24, True),
        ("FP32", "INT32", 2**24 + 1, False),
        ("FP32", "FP64", 2.0**24 + 1, False),
        ("FP32", "FP32", 0.5, False),
        ("FP64", "INT64", 2**53 - 1, True),
        ("FP64", "INT64", 2**53 + 1, False),
        ("FP64", "FP64", 2.0**53, False),
        ("FP16", "FP16", 2048, True),
        ("FP16", "FP64", 2049, False),
    ],
)
def test_an_integer_is_whole_and_exact(
    target: str, datatype: str, value: float, is_accepted: bool
) -> None:
    inputs, tensor = integer(target), sent("n", datatype, [value])
    if is_accepted:
        assert read(inputs, tensor) == {"x": [[value]]}
    else:
        assert "must be" in refusal(inputs, tensor)


def test_a_null_integer_becomes_what_the_bundle_says() -> None:
    inputs = integer("INT32", nullable=True, null_as=-9)
    assert read(inputs, sent("n", "FP64", [np.nan, 3])) == {"x": [[-9], [3]]}
    inputs = integer("FP32", nullable=True)
    assert np.isnan(read(inputs, sent("n", "FP64", [np.nan]))["x"][0][0])


def test_a_tensor_of_codes_is_held_to_the_categories() -> None:
    place = TensorSpec("plan", "INT32", (-1, 1))
    plan = Feature("plan", kind="category", categories=("free", "pro"))
    inputs = reader_of(place, plan)
    assert read(inputs, sent("plan", "INT32", [0, 1])) == {"plan": [[0], [1]]}
    assert read(inputs, sent("plan", "BYTES", ["free", "pro"])) == {"plan": [[0], [1]]}
    assert "0 to 1, for 'plan'" in refusal(inputs, sent("plan", "INT32", [2]))
    assert "did you mean 'free'" in refusal(inputs, sent("plan", "BYTES", ["fre"]))
    assert "must be BYTES" in refusal(inputs, sent("plan", "INT64", [0]))


def test_a_boolean_in_floats_is_zero_or_one() -> None:
    inputs = reader_of(
        TensorSpec("x", "FP32", (-1, 2)),
        Feature("a", column=0),
        Feature("b", kind="boolean", column=1),
    )
    assert read(inputs, sent("x", "FP32", [7, 1], 1, 2)) == {"x": [[7, 1]]}
    assert "must be 0 or 1, for 'b'" in refusal(inputs, sent("x", "FP32", [7, 2], 1, 2))
    columns = sent("a", "INT8", [7]), sent("b", "BOOL", [True])
    assert read(inputs, *columns) == {"x": [[7, 1]]}
    assert "must be BOOL, not FP32" in refusal(inputs, columns[0], sent("b", "FP32", [1]))


_SENT_AS = {"number": "FP64", "integer": "INT16", "boolean": "BOOL", "category": "BYTES"}


@pytest.mark.parametrize(("datatype", "null"), [("BOOL", True), ("INT8", 1), ("FP32", None)])
def test_a_boolean_that_may_be_null_comes_in_floats_too(datatype: str, null: Any) -> None:
    flag = Feature("b", kind="boolean", nullable=True, null_as=null)
    inputs = reader_of(TensorSpec("x", datatype, (-1, 1)), flag)
    assert read(inputs, sent("b", "BOOL", [True, False])) == {"x": [[1], [0]]}
    first, second, third = read(inputs, sent("b", "FP64", [0, 1, np.nan]))["x"]
    assert (first, second) == ([0], [1])
    assert third == [null] or (null is None and np.isnan(third[0]))
    assert "must be true or false" in refusal(inputs, sent("b", "FP64", [0.5]))
    assert "BOOL, or that of a float" in refusal(inputs, sent("b", "INT8", [1]))


def test_features_of_all_kinds_are_the_same_as_a_sample_and_as_columns() -> None:
    encoder = FeatureEncoder(MIXED, MIXED_INPUTS)
    columns = [sent(f.name, _SENT_AS[f.kind], [MIXED_SAMPLE[f.name]], 1, 1) for f in MIXED]
    expected = {name: array.tolist() for name, array in encoder.encode(MIXED_SAMPLE).items()}
    assert read(FeatureInputs(encoder), *columns) == expected
    tensors = [
        sent(spec.name, spec.datatype, np.ravel(expected[spec.name]).tolist(), 1, *spec.shape[1:])
        for spec in MIXED_INPUTS
    ]
    assert read(FeatureInputs(encoder), *tensors) == expected


def test_any_text_passes_where_the_bundle_says_so() -> None:
    spec = TensorSpec("x", "BYTES", (-1,))
    passing = Feature("word", kind="category", categories=("a",), unknown="pass")
    assert read(reader_of(spec, passing), sent("word", "BYTES", ["ü", "a"])) == {"x": ["ü", "a"]}
    known = Feature("word", kind="category", categories=("a",))
    assert "is not one of" in refusal(reader_of(spec, known), sent("x", "BYTES", ["b"]))
    assert "is not one of" in refusal(reader_of(spec, known), sent("word", "BYTES", ["b"]))


def test_null_among_strings_is_that_of_the_bundle() -> None:
    nullable: dict[str, Any] = {"kind": "category", "categories": ("a", "b"), "nullable": True}
    words = sent("word", "BYTES", ["b", None])
    text = TensorSpec("x", "BYTES", (-1, 1))
    assert read(reader_of(text, Feature("word", null_as="?", **nullable)), words) == {
        "x": [["b"], ["?"]]
    }
    codes = TensorSpec("x", "INT8", (-1, 1))
    assert read(reader_of(codes, Feature("word", null_as=-1, **nullable)), words) == {
        "x": [[1], [-1]]
    }
    floats = TensorSpec("x", "FP32", (-1, 1))
    ((first,), (second,)) = read(reader_of(floats, Feature("word", **nullable)), words)["x"]
    assert first == 1
    assert np.isnan(second)
    named = reader_of(TensorSpec("word", "BYTES", (-1,)), Feature("word", null_as="?", **nullable))
    assert read(named, words) == {"word": ["b", "?"]}
    with_null = reader_of(text, Feature("word", kind="category", categories=("a", "b")))
    assert "null (NaN) is not accepted for 'word'" in refusal(with_null, words)
    assert "must be a string" in refusal(with_null, sent("x", "BYTES", ["b", None], 2, 1))
