"""Answers of the protocol, and tensors of every datatype there and back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.protocols.open_inference.binary_data import encode_binary
from app.protocols.open_inference.datatypes import DATATYPES, Array
from app.protocols.open_inference.errors import InvalidRequest
from app.protocols.open_inference.request import decode_request
from app.protocols.open_inference.response import (
    InferenceResponse,
    OutputTensor,
    encode_response,
)


def tensor(name: str, datatype: str, values: Any, *, is_binary: bool = False) -> OutputTensor:
    kind = DATATYPES[datatype]
    return OutputTensor(name, kind, np.array(values, dtype=kind.dtype), is_binary, ("outputs", 0))


def answer(*outputs: OutputTensor) -> tuple[dict[str, Any], bytes, int | None]:
    body, json_bytes = encode_response(InferenceResponse("m", "1", "id-1", outputs))
    return json.loads(body[:json_bytes]), body[json_bytes or len(body) :], json_bytes


def test_data_are_flat_and_what_is_not_finite_is_null() -> None:
    document, binary, json_bytes = answer(
        tensor("a", "FP32", [[1.5, np.nan], [np.inf, -2]]),
        tensor("b", "BYTES", [b"x", b"\xc3\xa9"]),
    )
    assert document == {
        "model_name": "m",
        "model_version": "1",
        "id": "id-1",
        "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [2, 2], "data": [1.5, None, None, -2.0]},
            {"name": "b", "datatype": "BYTES", "shape": [2], "data": ["x", "é"]},
        ],
    }
    assert (binary, json_bytes) == (b"", None)


def test_binary_outputs_follow_the_json_in_its_order() -> None:
    document, binary, json_bytes = answer(
        tensor("a", "INT16", [1, 2], is_binary=True),
        tensor("b", "INT8", [3]),
        tensor("c", "BYTES", [b"hi"], is_binary=True),
        tensor("d", "FP32", np.empty((0, 2)), is_binary=True),
    )
    assert json_bytes is not None
    a, b, c, d = document["outputs"]
    assert (a["parameters"], c["parameters"]) == ({"binary_data_size": 4}, {"binary_data_size": 6})
    assert d["parameters"] == {"binary_data_size": 0}
    assert "data" not in a
    assert b["data"] == [3]
    assert binary == b"\x01\0\x02\0\x02\0\0\0hi"


def test_an_answer_whose_binary_outputs_are_empty_still_says_where_its_json_ends() -> None:
    _, binary, json_bytes = answer(tensor("a", "INT8", [], is_binary=True))
    assert json_bytes is not None
    assert binary == b""


@pytest.mark.parametrize(("datatype", "values"), [("BF16", [1.0]), ("BYTES", [b"\xff"])])
def test_what_json_cannot_hold_is_to_be_requested_in_binary(datatype: str, values: Any) -> None:
    with pytest.raises(InvalidRequest, match="request it with binary_data"):
        answer(tensor("a", datatype, values))


def any_tensor(name: str) -> st.SearchStrategy[tuple[str, Array]]:
    """Return arrays of a datatype, of any shape, with all of its values."""
    shapes = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    kind = DATATYPES[name]
    if name == "BYTES":
        elements: Any = st.binary(max_size=8) | st.text(max_size=4).map(str.encode)
    elif name == "BF16":
        elements = (
            st.floats(width=16)
            .filter(lambda v: v == 0 or abs(v) > 1e-3)
            .map(
                lambda v: float(
                    np.uint32(np.float32(v).view(np.uint32) & 0xFFFF0000).view(np.float32)
                )
            )
        )
    else:
        elements = arrays.from_dtype(kind.dtype)
    return shapes.flatmap(
        lambda shape: st.tuples(st.just(name), arrays.arrays(kind.dtype, shape, elements=elements))
    )


any_datatype = st.sampled_from(list(DATATYPES)).flatmap(any_tensor)


def same(one: Array, other: Array) -> bool:
    if one.dtype == object:
        return one.shape == other.shape and one.tolist() == other.tolist()
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


@given(st.lists(any_datatype, max_size=4), st.data())
def test_tensors_of_any_datatype_go_there_and_back(
    tensors: list[tuple[str, Array]], data: st.DataObject
) -> None:
    """As a request in JSON or binary, through arrays, into an answer that could be sent again."""
    binary: list[bytes] = []
    inputs = []
    for index, (name, array) in enumerate(tensors):
        document: dict[str, Any] = {"name": f"t{index}", "datatype": name, "shape": array.shape}
        if data.draw(st.booleans()) or not fits_json(name, array):
            binary.append(encode_binary(array, DATATYPES[name]))
            document["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            values = array if data.draw(st.booleans()) and array.ndim else array.reshape(-1)
            document["data"] = json_values(name, values)
        inputs.append(document)
    text = json.dumps({"inputs": inputs}).encode()
    request = decode_request(b"".join([text, *binary]), len(text), (), 9)
    outputs = []
    for sent, (_, array) in zip(request.inputs, tensors, strict=True):
        assert same(sent.read(), array)
        is_binary = data.draw(st.booleans()) or not fits_json(sent.datatype.name, array)
        outputs.append(OutputTensor(sent.name, sent.datatype, sent.read(), is_binary, ()))
    body, json_bytes = encode_response(InferenceResponse("m", "1", "", outputs))
    again = json.loads(body[:json_bytes])
    assert [output["name"] for output in again["outputs"]] == [each["name"] for each in inputs]
    back = json.dumps({"inputs": again["outputs"]}).encode()
    request = decode_request(
        back + body[len(body) if json_bytes is None else json_bytes :], len(back), (), 9
    )
    for received, (_, array) in zip(request.inputs, tensors, strict=True):
        assert same(received.read(), array)


def fits_json(name: str, array: Array) -> bool:
    if name == "BF16":
        return False
    if name == "BYTES":
        return all(is_text(value) for value in array.reshape(-1))
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def json_values(name: str, array: Array) -> Any:
    if name != "BYTES":
        return array.tolist()
    texts = np.empty(array.shape, dtype=object)
    texts.reshape(-1)[:] = [value.decode() for value in array.reshape(-1)]
    return texts.tolist()
