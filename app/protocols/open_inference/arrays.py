"""What all models need of a request's tensors: arrays as a network takes them, and their rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .datatypes import Array
from .errors import InvalidRequest
from .request import InputTensor


def count_rows(inputs: Sequence[InputTensor]) -> int:
    """Return the first dimension of ``inputs``, which have one, and all the same.

    Raises `InvalidRequest` if they don't.
    """
    first = inputs[0]
    rows = first.shape[0]
    for sent in inputs:
        if sent.shape[0] != rows:
            raise InvalidRequest.at(
                (*sent.path, "shape"),
                f"is that of {sent.shape[0]:,} rows, and {first.name!r} has {rows:,}",
            )
    return rows


def read_array(tensor: InputTensor) -> Array:
    """Return the values of an input, aligned; numbers that are sent in binary are a view of the
    body, and strings are `str`. Raises `InvalidRequest`.
    """
    array = tensor.read()
    if tensor.datatype.name == "BYTES":
        return _decoded(tensor, array, accepts_null=False)
    return array if array.flags.aligned else array.copy()


def read_column(tensor: InputTensor) -> Array:
    """Return the values of an input in one dimension, to be copied; strings are `str`, or None for
    null. Raises `InvalidRequest`.
    """
    column = tensor.read().reshape(-1)
    if tensor.datatype.name == "BYTES":
        return _decoded(tensor, column, accepts_null=True)
    return column


def _decoded(tensor: InputTensor, array: Array, *, accepts_null: bool) -> Array:
    sent = array.reshape(-1).tolist()
    if not accepts_null and None in sent:
        path = (*tensor.path, "data", sent.index(None))
        raise InvalidRequest.at(path, "must be a string; null is not accepted here")
    strings = np.empty(array.size, dtype=object)
    try:
        strings[:] = [value if value is None else value.decode() for value in sent]
    except UnicodeDecodeError as error:
        raise InvalidRequest.at(
            (*tensor.path, "data"), f"has a string that is not UTF-8 ({error.reason})"
        ) from None
    return strings.reshape(array.shape)


def encode_strings(array: Array) -> Array:
    """Return an array of `str` as one of `bytes`, which they are on the wire."""
    encoded = np.empty(array.size, dtype=object)
    encoded[:] = [value.encode() for value in array.reshape(-1)]
    return encoded.reshape(array.shape)
