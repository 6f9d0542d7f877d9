"""Tensors in binary: views of what was sent, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from app.protocols.open_inference.binary_data import decode_binary, encode_binary
from app.protocols.open_inference.datatypes import DATATYPES, Array
from app.protocols.open_inference.errors import InvalidRequest

PLAIN = [name for name in DATATYPES if name not in ("BYTES", "BF16")]


def decode(data: bytes, shape: list[int], datatype: str) -> Array:
    size = int(np.prod(shape))
    return decode_binary(memoryview(data), shape, size, DATATYPES[datatype], ("inputs", 0))


@pytest.mark.parametrize("name", PLAIN)
def test_an_array_is_a_view_of_the_body(name: str) -> None:
    values = np.array([[1, 0, 1], [0, 1, 1]], dtype=DATATYPES[name].dtype)
    body = encode_binary(values, DATATYPES[name])
    assert len(body) == 6 * DATATYPES[name].itemsize
    array = decode(body, [2, 3], name)
    assert array.tolist() == values.tolist()
    assert not array.flags.owndata
    assert np.shares_memory(array, np.frombuffer(body, dtype=np.uint8))


def test_bf16_is_the_upper_half_of_a_float32() -> None:
    # As ml_dtypes.bfloat16 has them: 1, -2, the largest, infinity, NaN, and 1 + 2**-7.
    body = np.array([0x3F80, 0xC000, 0x7F7F, 0x7F80, 0x7FC0, 0x3F81], dtype="<u2").tobytes()
    array = decode(body, [6], "BF16")
    assert array.dtype == np.float32
    assert array[:2].tolist() == [1, -2]
    assert array[5] == 1.0078125
    assert np.isinf(array[3])
    assert np.isnan(array[4])
    assert encode_binary(array, DATATYPES["BF16"]) == body


def test_to_bf16_rounds_half_to_even() -> None:
    halfway = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x7F800001], dtype="<u4")
    bits = np.frombuffer(encode_binary(halfway.view("<f4"), DATATYPES["BF16"]), dtype="<u2")
    assert bits[:3].tolist() == [0x3F80, 0x3F82, 0x3F81]
    assert np.isnan(decode(bits.tobytes(), [4], "BF16")[3])


def test_strings_have_their_lengths_before_them() -> None:
    body = b"\x02\0\0\0ab\0\0\0\0\x03\0\0\0\xff\0\x01"
    array = decode(body, [3, 1], "BYTES")
    assert array.tolist() == [[b"ab"], [b""], [b"\xff\0\x01"]]
    assert encode_binary(array, DATATYPES["BYTES"]) == body


@pytest.mark.parametrize(
    ("data", "shape", "datatype", "detail"),
    [
        (b"123", [1], "FP32", "has 3 bytes of data, and FP32 of the shape [1] takes 4"),
        (b"12345", [1], "INT32", "has 5 bytes of data"),
        (b"", [1], "BF16", "has 0 bytes of data"),
        (b"\x01\0\0\0", [1], "BYTES", "ends within the string 0"),
        (b"\0\0\0\0\x01\0\0", [1], "BYTES", "has 3 bytes of data after its 1 strings"),
        (b"\x04\0\0\0abcd", [2], "BYTES", "ends within the string 1"),
        (b"\x02\0\0\0ab\0\0", [2], "BYTES", "ends within the string 1"),
        (b"\xff\xff\xff\xff", [1], "BYTES", "ends within the string 0"),
        (b"\0\0\0\0", [2**40], "BYTES", "has 4 bytes of data, too few"),
    ],
)
def test_bytes_too_few_or_too_many_are_refused(
    data: bytes, shape: list[int], datatype: str, detail: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(data, shape, datatype)
    (fault,) = caught.value.faults
    assert fault.detail.startswith(detail)


def test_a_bool_is_a_byte_that_is_0_or_1() -> None:
    with pytest.raises(InvalidRequest, match="must be 0 or 1"):
        decode(b"\x00\x02", [2], "BOOL")
