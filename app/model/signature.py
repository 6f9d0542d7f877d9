"""A model's signature: its inputs and outputs as typed tensors.

Datatypes have the names of the Open Inference Protocol (FP32, INT64, BOOL, BYTES, ...); a dimension
of -1 varies. An array of BYTES holds strings, as `str`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from . import bfloat16

Array = NDArray[Any]
Tensors = Mapping[str, Array]
"""Arrays by the names of the inputs, or outputs, that they are."""

FEATURES = "features"
"""The input of a model of named numbers: a row for each sample, a column for each feature."""
PROBABILITIES, PREDICTION, LABEL = "probabilities", "prediction", "label"
"""The outputs of a classifier: for each class, and the index and name of the predicted one."""

MAX_RANK = 32
"""Dimensions of a tensor at most."""
MAX_TENSORS = 1000
"""Inputs, or outputs, of a model at most."""

_CARRIERS = {"BF16": "FP32"}
"""By the datatypes that numpy lacks, those that hold their values, in process and at the border of
a graph: packing adds the casts.
"""
DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    "BF16": np.dtype(np.float32),
    "BYTES": np.dtype(np.object_),
}
"""The datatypes that a runtime executes, with those of the arrays that hold their values."""

_Datatype = Annotated[
    str,
    Meta(pattern=rf"\A(?:{'|'.join(DTYPES)})\Z", description=f"one of {', '.join(DTYPES)}"),
]
TensorName = Annotated[
    str, Meta(min_length=1, max_length=256, description="a string of 1 to 256 characters")
]
_Dimension = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
_Shape = Annotated[
    tuple[_Dimension, ...],
    Meta(max_length=MAX_RANK, description=f"an array of at most {MAX_RANK} integers, -1 for any"),
]


def carrier(datatype: str) -> str:
    """Return the datatype that a graph says of a tensor of ``datatype``."""
    return _CARRIERS.get(datatype, datatype)


def as_datatype(numbers: Array, datatype: str) -> Array:
    """Return numbers as a tensor of ``datatype`` holds them, rounded to the nearest, half to even.

    What is too large for a float becomes infinite.
    """
    if datatype == "BF16":
        return bfloat16.rounded(numbers)
    return numbers.astype(DTYPES[datatype], copy=False)


class TensorSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """The name, datatype and shape of a tensor."""

    name: TensorName
    datatype: _Datatype
    shape: _Shape

    @property
    def form(self) -> str:
        """Its datatype and shape, in words."""
        return f"{self.datatype} of shape {list(self.shape)}"

    @property
    def is_float(self) -> bool:
        """True if its values are floats."""
        return DTYPES[self.datatype].kind == "f"

    def accepts(self, shape: Sequence[int]) -> bool:
        """Return True if an array of ``shape`` is one of this tensor."""
        return len(shape) == len(self.shape) and all(
            wanted in (-1, size) for wanted, size in zip(self.shape, shape, strict=True)
        )


Role = Literal[
    "probabilities", "logits", "scores", "values", "label", "embedding", "state", "tensor"
]
"""The meaning of an output. A ``state`` is for the next request; a ``tensor`` means what the caller
knows."""


class OutputSpec(TensorSpec, frozen=True, forbid_unknown_fields=True):
    """An output of a network, and what it means."""

    role: Role = "tensor"


class Signature(Struct, frozen=True):
    """The tensors that a model takes, and those that it returns."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[OutputSpec, ...]


def row_count(rows: Tensors) -> int:
    """Return how many rows ``rows`` are: the first dimension of all its arrays."""
    return len(next(iter(rows.values())))


def select_rows(rows: Tensors, chosen: slice | Array) -> Tensors:
    """Return some of the rows: a slice, those at places, or those where an array says True."""
    return {name: array[chosen] for name, array in rows.items()}


def row_at(rows: Tensors, index: int) -> Tensors:
    """Return one row alone, as rows."""
    return select_rows(rows, slice(index, index + 1))


def no_rows(spec: TensorSpec) -> Array:
    """Return the array of ``spec``, whose first dimension is rows, that has none."""
    return np.empty((0, *(max(size, 0) for size in spec.shape[1:])), DTYPES[spec.datatype])


def classifier_graph(features: int, classes: int) -> Signature:
    """Return the signature of the network of a classifier: one matrix of numbers to
    probabilities.
    """
    return Signature((matrix_spec(features),), (probabilities_spec(classes),))


def matrix_spec(features: int) -> TensorSpec:
    """Return the one input of a model whose features are numbers."""
    return TensorSpec(FEATURES, "FP32", (-1, features))


def probabilities_spec(classes: int) -> OutputSpec:
    """Return the output of a classifier."""
    return OutputSpec(PROBABILITIES, "FP32", (-1, classes), "probabilities")
