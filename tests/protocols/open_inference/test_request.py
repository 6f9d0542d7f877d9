"""Requests for inference: what is read of them, and how what is wrong is worded."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from app.model.signature import TensorSpec
from app.protocols.open_inference.errors import InvalidRequest
from app.protocols.open_inference.request import (
    InferenceRequest,
    RequestedOutput,
    _decode_again,
    decode_request,
    wants_ready_only,
)
from app.protocols.raw_json import NotJson

SPECS = (TensorSpec("x", "FP32", (-1, 2)),)
X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}


def read(document: Any, binary: bytes = b"", json_bytes: int | None = None) -> InferenceRequest:
    text = json.dumps(document).encode()
    return decode_request(text + binary, len(text) if binary else json_bytes, SPECS, 9)


def fault(document: Any, binary: bytes = b"") -> tuple[tuple[str | int, ...], str]:
    with pytest.raises(InvalidRequest) as caught:
        for tensor in read(document, binary).inputs:
            tensor.read()
    (one,) = caught.value.faults
    return one.path, one.detail


def test_what_is_known_is_read_and_the_rest_ignored() -> None:
    request = read(
        {
            "model_name": "any",
            "id": "7",
            "parameters": {"binary_data_output": True, "sequence_id": 0, "more": {}},
            "inputs": [X | {"parameters": {"content_type": "np"}, "more": [1]}],
            "outputs": [
                {"name": "a"},
                {"name": "b", "parameters": {"binary_data": False, "classification": 3}},
            ],
        }
    )
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype.name, tensor.read().tolist()) == ("x", "FP32", [[1, 2]])
    assert request.id == "7"
    assert request.outputs == (
        RequestedOutput("a", ("outputs", 0), is_binary=True),
        RequestedOutput("b", ("outputs", 1), is_binary=False, classes=3),
    )


@pytest.mark.parametrize("outputs", [None, [], ...])
def test_without_outputs_all_are_asked_for(outputs: Any) -> None:
    document: dict[str, Any] = {"inputs": [X]} | ({} if outputs is ... else {"outputs": outputs})
    assert read(document | {"id": None, "parameters": None}).outputs == ()


def test_binary_data_follow_the_json_in_its_order() -> None:
    inputs = [
        {"name": "a", "shape": [2], "datatype": "INT16", "parameters": {"binary_data_size": 4}},
        X,
        {"name": "s", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}},
        {"name": "e", "shape": [0], "datatype": "FP32", "parameters": {"binary_data_size": 0}},
    ]
    request = read({"inputs": inputs}, b"\x01\0\x02\0\x02\0\0\0hi")
    values = [tensor.read().tolist() for tensor in request.inputs]
    assert values == [[1, 2], [[1, 2]], [b"hi"], []]


def test_an_empty_binary_tensor_needs_no_header() -> None:
    empty = {"name": "e", "shape": [0, 3], "datatype": "FP32", "data": None}
    request = read({"inputs": [empty | {"parameters": {"binary_data_size": 0}}]})
    assert request.inputs[0].read().shape == (0, 3)


def test_a_body_without_json_is_the_only_input() -> None:
    body = np.array([[1, 2], [3, 4], [5, 6]], dtype="<f4").tobytes()
    request = decode_request(body, 0, SPECS, 9)
    (tensor,) = request.inputs
    assert request.is_binary
    assert tensor.name == "x"
    assert tensor.read().tolist() == [[1, 2], [3, 4], [5, 6]]
    with pytest.raises(InvalidRequest, match="takes a multiple of 8"):
        decode_request(body[:-1], 0, SPECS, 9)
    unknowable = TensorSpec("x", "FP32", (-1, -1)), TensorSpec("x", "BYTES", (-1,))
    for specs in ((), SPECS * 2, unknowable[:1], unknowable[1:]):
        with pytest.raises(InvalidRequest, match="must begin with JSON"):
            decode_request(body, 0, specs, 9)


@pytest.mark.parametrize("shape", [(1,), (-1, 1)])
def test_a_body_without_json_may_be_one_string(shape: tuple[int, ...]) -> None:
    (tensor,) = decode_request(b"427", 0, [TensorSpec("x", "BYTES", shape)], 9).inputs
    assert tensor.read().tolist() in ([b"427"], [[b"427"]])
    assert tensor.shape == (1,) * len(shape)


@pytest.mark.parametrize("sequence", [7, "mine"])
def test_a_sequence_is_refused_because_nothing_is_remembered(sequence: int | str) -> None:
    found = fault({"inputs": [X], "parameters": {"sequence_id": sequence}})
    assert found[0] == ("parameters", "sequence_id")
    assert "not supported" in found[1]


@pytest.mark.parametrize(
    ("change", "path", "detail"),
    [
        ({"name": 1}, ("name",), "must be a string, not an integer"),
        ({"shape": {}}, ("shape",), "must be an array of at most 32, not an object"),
        ({"shape": [1, -2]}, ("shape", 1), "must be an integer of at least 0"),
        ({"shape": [1, 2.0]}, ("shape", 1), "must be an integer of at least 0, not a number"),
        ({"shape": [True, 2]}, ("shape", 0), "must be an integer of at least 0, not true or false"),
        ({"shape": [1] * 33}, ("shape",), "must be an array of at most 32"),
        ({"shape": [2**62, 2**62]}, ("shape",), "is larger than any tensor can be"),
        ({"shape": [10**30]}, ("shape",), "is larger than any tensor can be"),
        ({"datatype": "FP31"}, ("datatype",), "must be one of BOOL, FP16"),
        ({"datatype": None}, ("datatype",), "must be a string, not null"),
        ({"data": None}, ("data",), "is missing"),
        ({"data": [1, 2, 3]}, ("data",), "has 3 values"),
        ({"parameters": []}, ("parameters",), "must be an object or null, not an array"),
        (
            {"parameters": {"binary_data_size": -1}},
            ("parameters", "binary_data_size"),
            "must be an integer of at least 0",
        ),
        ({"parameters": {"binary_data_size": 0}}, ("data",), "must be left out"),
        (
            {"data": None, "parameters": {"binary_data_size": 8}},
            ("parameters", "binary_data_size"),
            "takes the header Inference-Header-Content-Length",
        ),
        ({"parameters": {"shared_memory_region": "r"}}, ("parameters",), "name shared memory"),
    ],
)
def test_what_is_wrong_with_an_input_is_named(
    change: dict[str, Any], path: tuple[str | int, ...], detail: str
) -> None:
    found, said = fault({"inputs": [X | change]})
    assert found == ("inputs", 0, *path)
    assert said.startswith(detail)


@pytest.mark.parametrize("member", ["name", "shape", "datatype", "data"])
def test_what_is_missing_of_an_input_is_named(member: str) -> None:
    incomplete = {key: value for key, value in X.items() if key != member}
    assert fault({"inputs": [incomplete]}) == (("inputs", 0, member), "is missing")


@pytest.mark.parametrize(
    ("document", "path", "detail"),
    [
        ({}, ("inputs",), "is missing"),
        ([], (), "must be an object, not an array"),
        ({"inputs": {}}, ("inputs",), "must be an array, not an object"),
        ({"inputs": [3]}, ("inputs", 0), "must be an object, not an integer"),
        ({"inputs": [X, X]}, ("inputs", 1, "name"), "is that of an earlier one, too"),
        (
            {"inputs": [X], "parameters": {"sequence_id": True}},
            ("parameters", "sequence_id"),
            "must be an integer or a string or null, not true or false",
        ),
        ({"inputs": [X], "id": 3}, ("id",), "must be a string or null, not an integer"),
        ({"inputs": [X], "outputs": [{}]}, ("outputs", 0, "name"), "is missing"),
        (
            {"inputs": [X], "outputs": [{"name": "a"}, {"name": "a"}]},
            ("outputs", 1, "name"),
            "is that of an earlier one, too",
        ),
        (
            {"inputs": [X], "outputs": [{"name": "a", "parameters": {"classification": 0}}]},
            ("outputs", 0, "parameters", "classification"),
            "must be an integer of at least 1",
        ),
        (
            {"inputs": [X], "outputs": [{"name": "a", "parameters": {"shared_memory_region": 1}}]},
            ("outputs", 0, "parameters"),
            "name shared memory",
        ),
    ],
)
def test_what_is_wrong_with_a_request_is_named(
    document: Any, path: tuple[str | int, ...], detail: str
) -> None:
    found, said = fault(document)
    assert found == path
    assert said.startswith(detail)


@pytest.mark.parametrize("binary", [b"\0" * 7, b"\0" * 9])
def test_binary_data_of_another_size_are_refused(binary: bytes) -> None:
    without = {"name": "x", "shape": [1, 2], "datatype": "FP32"}
    path, detail = fault({"inputs": [without | {"parameters": {"binary_data_size": 8}}]}, binary)
    assert path == ("inputs",)
    assert detail == (
        f"have a binary_data_size of 8 bytes in all, and {len(binary)} bytes follow the JSON"
    )


def test_requests_with_the_same_json_have_their_own_data() -> None:
    document = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32"}], "id": "same"}
    document["inputs"][0]["parameters"] = {"binary_data_size": 8}  # type: ignore[index]
    sent = [np.array([[n, -n]], dtype="<f4") for n in range(3)]
    requests = [read(document, each.tobytes()) for each in sent]
    for request, each in zip(requests, sent, strict=True):
        assert request.inputs[0].read().tolist() == each.tolist()
    for binary in (b"\0" * 7, b"\0" * 9):
        assert fault(document, binary)[0] == ("inputs",)
    assert read(document, sent[1].tobytes()).inputs[0].read().tolist() == [[1, -1]]


def test_what_is_remembered_of_json_is_bounded() -> None:
    def decoded(times: int, **more: str) -> int:
        before = _decode_again.cache_info()
        for _ in range(times):
            read({"inputs": [X], **more}, json_bytes=len(json.dumps({"inputs": [X], **more})))
        after = _decode_again.cache_info()
        assert after.currsize <= 64
        return after.hits + after.misses - before.hits - before.misses

    for number in range(100):
        assert decoded(2, id=str(number)) == 2
    assert decoded(2, id="a" * 5000) == 0, "as much as a client likes"


def test_more_json_than_there_are_bytes_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="has 2 bytes, and Inference-Header-Content-Length"):
        decode_request(b"{}", 3, SPECS, 9)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"nan", b'{"inputs": [], "a": "\xff"}', b'{"x":' * 100_000, b'{"inputs":[NaN]}'],
)
def test_what_is_not_json_is_said_to_be_none(text: bytes) -> None:
    with pytest.raises(NotJson):
        decode_request(text, None, SPECS, 9)


def test_more_inputs_or_outputs_than_a_model_has_are_refused() -> None:
    inputs = [X | {"name": str(index)} for index in range(10)]
    assert fault({"inputs": inputs}) == (("inputs",), "are 10, and at most 9 are looked at")
    path, detail = fault({"inputs": [], "outputs": [{"name": "a"}] * 1001})
    assert (path, detail) == (("outputs",), "must be an array of at most 1000 or null")


def test_an_index_may_be_of_what_is_ready_alone() -> None:
    assert not wants_ready_only(b"")
    assert not wants_ready_only(b'{"ready": false, "more": 1}')
    assert wants_ready_only(b'{"ready": true}')
    with pytest.raises(InvalidRequest):
        wants_ready_only(b'{"ready": 1}')
    with pytest.raises(NotJson):
        wants_ready_only(b"x")
