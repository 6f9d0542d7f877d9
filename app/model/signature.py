"""A model's signature: its inputs and outputs as typed tensors.

Datatypes have the names of the Open Inference Protocol (FP32, INT64, BOOL, BYTES, ...); a dimension
of -1 varies.
"""

from __future__ import annotations

from dataclasses import dataclass

FEATURES = "features"
"""The input of a model of named numbers: a row for each sample, a column for each feature."""
PROBABILITIES, PREDICTION, LABEL = "probabilities", "prediction", "label"
"""The outputs of a classifier: for each class, and the index and name of the most probable one."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The name, datatype and shape of a tensor."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors that a model takes, and those that it returns."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def classifier_signature(features: int, classes: int) -> Signature:
    """Return the signature of a classifier of as many named numbers and classes."""
    return Signature(
        inputs=(TensorSpec(FEATURES, "FP32", (-1, features)),),
        outputs=(
            TensorSpec(PROBABILITIES, "FP32", (-1, classes)),
            TensorSpec(PREDICTION, "INT64", (-1,)),
            TensorSpec(LABEL, "BYTES", (-1,)),
        ),
    )
