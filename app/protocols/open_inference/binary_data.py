"""The data of a tensor in binary: its values one after the other, little-endian.

A string (BYTES) is its length in bytes as a uint32, and then these.
Format: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from ...model import bfloat16
from .datatypes import Array, Datatype
from .errors import InvalidRequest, Path

_LENGTH = struct.Struct("<I")


def decode_binary(
    data: memoryview, shape: Sequence[int], size: int, datatype: Datatype, path: Path
) -> Array:
    """Return the array of ``shape``, of ``size`` values, that ``data`` holds.

    It is a view of ``data``, but for BF16 and BYTES. Raises `InvalidRequest` with ``path``.
    """
    if datatype.name == "BYTES":
        return _decode_strings(data, size, path).reshape(shape)
    wanted = size * datatype.itemsize
    if len(data) != wanted:
        raise InvalidRequest.at(
            path,
            f"has {len(data):,} bytes of data, and {datatype.name} of the shape {list(shape)} "
            f"takes {wanted:,}",
        )
    if datatype.name == "BF16":
        return bfloat16.from_bits(np.frombuffer(data, dtype="<u2")).reshape(shape)
    if datatype.name == "BOOL" and np.frombuffer(data, dtype=np.uint8).max(initial=0) > 1:
        raise InvalidRequest.at(path, "has BOOL data with a byte that must be 0 or 1 and is not")
    return np.ndarray(shape, datatype.dtype, data)


def encode_binary(array: Array, datatype: Datatype) -> bytes | memoryview:
    """Return the values of an array in binary, as a view of it where they are in that form."""
    if datatype.name == "BYTES":
        return b"".join(map(frame, array.reshape(-1)))
    if datatype.name == "BF16":
        return bfloat16.to_bits(array).tobytes()
    flat = np.ascontiguousarray(array, dtype=datatype.dtype).reshape(-1)
    return flat.view(np.uint8).data


def frame(value: bytes | memoryview) -> bytes:
    """Return a string with its length before it."""
    return _LENGTH.pack(len(value)) + value


def _decode_strings(data: memoryview, size: int, path: Path) -> Array:
    if size * _LENGTH.size > len(data):
        raise InvalidRequest.at(
            path, f"has {len(data):,} bytes of data, too few for the lengths of {size:,} strings"
        )
    strings = np.empty(size, dtype=object)
    at = 0
    for index in range(size):
        begin = at + _LENGTH.size
        at = begin + (_LENGTH.unpack_from(data, at)[0] if begin <= len(data) else 0)
        if max(at, begin) > len(data):
            raise InvalidRequest.at(path, f"ends within the string {index}")
        strings[index] = bytes(data[begin:at])
    if at != len(data):
        raise InvalidRequest.at(
            path, f"has {len(data) - at:,} bytes of data after its {size:,} strings"
        )
    return strings
