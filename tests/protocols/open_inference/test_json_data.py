"""Tensors in JSON: what becomes which array, and what is refused before memory is taken."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from app.protocols.open_inference import json_data
from app.protocols.open_inference.datatypes import DATATYPES, Array, count_values
from app.protocols.open_inference.errors import InvalidRequest
from app.protocols.open_inference.json_data import decode_json

PATH = ("inputs", 0, "data")


def decode(text: str, shape: list[int], datatype: str) -> Array:
    size = count_values(shape, DATATYPES[datatype], PATH)
    return decode_json(Raw(text.encode()), shape, size, DATATYPES[datatype], PATH)


def fault(text: str, shape: list[int], datatype: str) -> tuple[tuple[str | int, ...], str]:
    with pytest.raises(InvalidRequest) as caught:
        decode(text, shape, datatype)
    (one,) = caught.value.faults
    return one.path[len(PATH) :], one.detail


@pytest.mark.parametrize(
    ("text", "shape", "datatype", "values"),
    [
        ("[1, 2.5, -3e2]", [3], "FP64", [1.0, 2.5, -300.0]),
        ("[[1,2],[3,4]]", [2, 2], "FP32", [[1, 2], [3, 4]]),
        ("[ [ [1 ] ,\n[2] ] ]", [1, 2, 1], "INT8", [[[1], [2]]]),
        ("[1,2,3,4]", [2, 2], "UINT8", [[1, 2], [3, 4]]),
        ("[7]", [], "INT32", 7),
        ("[]", [0], "FP32", []),
        ("[[],[]]", [2, 0], "INT64", [[], []]),
        ("[]", [3, 0], "BYTES", [[], [], []]),
        ("[18446744073709551615, 0]", [2], "UINT64", [2**64 - 1, 0]),
        ("[-9223372036854775808]", [1], "INT64", [-(2**63)]),
        ("[true,false]", [2], "BOOL", [True, False]),
        ('["a","é,]"]', [2, 1], "BYTES", [[b"a"], ["é,]".encode()]]),
        ('[["a","b"],["c","[d"]]', [2, 2], "BYTES", [[b"a", b"b"], [b"c", b"[d"]]),
        ("[65504]", [1], "FP16", [65504]),
    ],
)
def test_data_become_an_array_of_the_shape(
    text: str, shape: list[int], datatype: str, values: Any
) -> None:
    array = decode(text, shape, datatype)
    assert array.dtype == DATATYPES[datatype].dtype
    assert array.shape == tuple(shape)
    assert array.tolist() == values


def test_null_is_not_a_number_where_there_are_fractions() -> None:
    array = decode("[1, null]", [2], "FP32")
    assert array[0] == 1
    assert math.isnan(array[1])


@pytest.mark.parametrize(
    ("text", "shape", "datatype", "path", "detail"),
    [
        ("[1,2]", [3], "FP32", (), "has 2 values, and the shape [3] takes 3"),
        ("[]", [1], "FP32", (), "has 0 values, and the shape [1] takes 1"),
        ("[1]", [0], "FP32", (), "has 1 values, and the shape [0] takes 0"),
        ("[1]", [9007199254740992], "INT8", (), "has 1 values"),
        ('["a"]', [2], "BYTES", (), "has 1 values"),
        ("[[1,2],[3]]", [2, 2], "FP32", (), "is nested otherwise than the shape [2, 2]"),
        ("[[1],[]]", [2, 1], "FP32", (), "is nested otherwise"),
        ("[[],[]]", [2, 1], "FP32", (), "has 0 values, and the shape [2, 1] takes 2"),
        ("[[],[1]]", [2, 0], "FP32", (), "has 2 values, and the shape [2, 0] takes 0"),
        ("[[1,2,3,4]]", [2, 2], "FP32", (), "is nested otherwise"),
        ("[[1]]", [], "FP32", (), "is nested otherwise"),
        ("[[1]]", [1, 1000000000000000], "INT8", (), "is nested otherwise"),
        ('[["a"],["b","c"]]', [3, 1], "BYTES", (), "is nested otherwise"),
        ("1", [], "FP32", (), "must be an array"),
        ("{}", [1], "FP32", (), "must be an array"),
        ("[1.0]", [1], "INT32", (0,), "must be an integer from -2147483648 to 2147483647"),
        ("[1,128]", [2], "INT8", (1,), "must be an integer from -128 to 127"),
        ("[1,-1]", [2], "UINT64", (1,), "must be an integer from 0 to 18446744073709551615"),
        ("[1,18446744073709551616]", [2], "UINT64", (1,), "must be an integer from 0"),
        ("[9223372036854775808]", [1], "INT64", (0,), "must be an integer from"),
        ("[true]", [1], "INT32", (0,), "must be an integer"),
        ("[null]", [1], "INT32", (0,), "must be an integer"),
        ("[true]", [1], "FP32", (0,), "must be a number that is finite as FP32"),
        ('["1"]', [1], "FP64", (0,), "must be a number that is finite as FP64"),
        ("[0,1e39]", [2], "FP32", (1,), "must be a number that is finite as FP32"),
        ("[0,1e999]", [2], "FP64", (1,), "must be a number that is finite as FP64"),
        ("[65520]", [1], "FP16", (0,), "must be a number that is finite as FP16"),
        ("[1,0]", [2], "BOOL", (0,), "must be true or false"),
        ('["a",1]', [2], "BYTES", (1,), "must be a string"),
        (r'["\ud800"]', [1], "BYTES", (0,), "must be a string"),
        ("[1]", [1], "BF16", (), "can't hold BF16"),
        ("[{}]", [1], "FP32", (0,), "must be a number"),
    ],
)
def test_data_that_are_not_of_shape_and_datatype_are_refused_with_their_place(
    text: str, shape: list[int], datatype: str, path: tuple[int, ...], detail: str
) -> None:
    found, said = fault(text, shape, datatype)
    assert found == path
    assert said.startswith(detail)


@pytest.mark.parametrize("count", [8192, 8193, 20_000, 16_384])
def test_many_values_are_read_in_parts(count: int) -> None:
    values = list(range(count))
    assert decode(json.dumps(values), [count], "INT32").tolist() == values
    nested = np.arange(count, dtype=np.float64).reshape(2, -1, 1) if count % 2 == 0 else None
    if nested is not None:
        assert np.array_equal(
            decode(json.dumps(nested.tolist()), list(nested.shape), "FP32"), nested
        )


def test_the_place_of_a_fault_is_right_in_every_part() -> None:
    values: list[Any] = [0.5] * 20_000
    values[17_000] = "x"
    assert fault(json.dumps(values), [20_000], "FP32")[0] == (17_000,)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT8", "INT64", "UINT8", "UINT64"])
def test_numbers_are_read_without_a_python_object_for_each(
    datatype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str) -> None:
        raise AssertionError(f"the values of {name} became objects")

    monkeypatch.setattr(json_data, "_decoder", refused)
    dtype = DATATYPES[datatype].dtype
    values = np.random.default_rng(0).integers(0, 100, 60_000).astype(dtype)
    if dtype.kind == "f":
        values = (values / 7).astype(dtype)
    text = json.dumps(values.tolist(), indent=1)
    assert np.array_equal(decode(text, [60_000], datatype), values)


def test_a_part_with_nulls_is_read_among_others() -> None:
    values: list[Any] = [0.1] * 50_000
    values[30_000] = None
    found = decode(json.dumps(values), [50_000], "FP64")
    assert np.isnan(found[30_000])
    assert np.array_equal(np.delete(found, 30_000), np.full(49_999, 0.1))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64)))
def test_numbers_are_those_that_python_reads(values: list[float]) -> None:
    found = decode(json.dumps(values), [len(values)], "FP64")
    assert found.tolist() == [float(value) for value in values]


def test_a_shape_that_no_memory_can_hold_is_refused() -> None:
    for shape in ([2**62, 2**62], [0, 2**62, 2**62], [2**63]):
        with pytest.raises(InvalidRequest, match="larger than any tensor"):
            count_values(shape, DATATYPES["INT8"], PATH)
