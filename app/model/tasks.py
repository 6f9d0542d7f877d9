"""Tasks: what the outputs of a network mean.

A `Model` runs any network by its signature. Its task says what clients see of it, how its golden
data are run, and which answers are right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from .errors import BundleError, shown
from .golden import Golden
from .manifest import Manifest, Tolerance
from .runtime import Runtime
from .signature import (
    FEATURES,
    PROBABILITIES,
    Array,
    OutputSpec,
    Signature,
    Tensors,
    classifier_signature,
)

GOLDEN_TOLERANCE = 1e-5
"""The largest absolute difference allowed from a packed probability."""
DEVICE_GOLDEN_TOLERANCE = 1e-4
"""The same on a device other than the CPU, which sums in another order."""


class Task(Protocol):
    """What the outputs of a network mean. ``signature`` is what clients see of it.

    ``has_rows`` tells whether each row of the inputs is a sample of its own, with a row of each
    output: such rows may run together.
    """

    name: str
    has_rows: bool
    signature: Signature

    def runs_of(self, golden: Golden) -> tuple[Sequence[Golden], Golden | None]:
        """Return golden data to be run one after the other, and all of them together, if they may.

        They are the same outputs, row for row.
        """
        ...

    def check_answer(self, outputs: Tensors, wanted: Golden, device: str) -> None:
        """Raise `BundleError` unless ``outputs`` are what was packed."""
        ...


class Classification:
    """Classes that exclude each other, of rows of named numbers."""

    name = "classification"
    has_rows = True

    def __init__(self, features: int, classes: int) -> None:
        self.signature = classifier_signature(features, classes)
        self._classes = classes

    def runs_of(self, golden: Golden) -> tuple[Sequence[Golden], Golden | None]:
        rows = range(len(golden.samples))
        alone = [
            Golden.of_classifier(golden.samples[i : i + 1], golden.probabilities[i : i + 1])
            for i in rows
        ]
        return alone, golden

    def check_answer(self, outputs: Tensors, wanted: Golden, device: str) -> None:
        answers, expected = outputs[PROBABILITIES], wanted.probabilities
        self.check_probabilities(answers, len(expected))
        allowed = GOLDEN_TOLERANCE if device == "cpu" else DEVICE_GOLDEN_TOLERANCE
        error = float(np.abs(answers - expected).max())
        if not error <= allowed:
            raise BundleError(
                f"The answers to the golden samples differ from those when the model was "
                f"packed (by up to {error:.2g}; {allowed:g} is allowed), so this model can't "
                "be served."
            )

    def check_probabilities(self, answers: Array, rows: int) -> None:
        """Raise `BundleError` unless ``answers`` are the probabilities of so many ``rows``."""
        wanted = (rows, self._classes)
        if answers.shape != wanted:
            raise BundleError(
                f"The network returns outputs of shape {answers.shape} for {wanted[0]} rows, not "
                f"{wanted}: the manifest names {wanted[1]} classes."
            )
        # Written so that NaN fails too.
        if not (answers >= 0).all() or not (np.abs(answers.sum(axis=1) - 1) <= 1e-4).all():
            raise BundleError(
                "The network's outputs are not probabilities: they must be finite, not negative, "
                "and sum to 1 (is softmax in the graph?)."
            )


class TensorTask:
    """Tensors as the network has them: what they mean is known to the caller."""

    name = "tensors"
    has_rows = False

    def __init__(
        self,
        signature: Signature,
        outputs: Sequence[OutputSpec],
        tolerances: Mapping[str, Tolerance],
    ) -> None:
        self.signature = signature
        self._outputs = outputs
        self._tolerances = tolerances

    def runs_of(self, golden: Golden) -> tuple[Sequence[Golden], Golden | None]:
        return [golden], None

    def check_answer(self, outputs: Tensors, wanted: Golden, device: str) -> None:
        for fault in self._faults(outputs, wanted.outputs):
            raise BundleError(
                "The outputs for the golden data differ from those when the model was packed: "
                f"{fault}. So this model can't be served."
            )

    def _faults(self, outputs: Tensors, wanted: Tensors) -> Iterator[str]:
        for spec in self._outputs:
            found, expected = outputs[spec.name], wanted[spec.name]
            if found.shape != expected.shape:
                yield (
                    f"{shown(spec.name)} has the shape {list(found.shape)}, "
                    f"not {list(expected.shape)}"
                )
            elif not is_close(found, expected, self._tolerances.get(spec.name, Tolerance())):
                largest = largest_difference(found, expected)
                by = "" if largest is None else f" by up to {largest:.2g}"
                yield f"{shown(spec.name)} differs{by}"


def task_of(manifest: Manifest) -> Task:
    """Return the task of a model."""
    if manifest.task == "classification":
        return Classification(len(manifest.features), len(manifest.classes))
    return TensorTask(manifest.signature, manifest.outputs, manifest.tolerances)


def probabilities_of(runtime: Runtime, matrix: Array) -> Array:
    """Return the probabilities ``(n, classes)`` of raw features ``(n, width)``, both float32."""
    return runtime.run({FEATURES: matrix})[PROBABILITIES]


def is_close(found: Array, expected: Array, tolerance: Tolerance) -> bool:
    """Return True if two arrays of one shape are the same within ``tolerance``, NaN for NaN.

    What is no float must be equal.
    """
    if expected.dtype.kind != "f":
        return bool(np.array_equal(found, expected))
    return bool(
        np.allclose(
            found.astype(np.float64),
            expected.astype(np.float64),
            rtol=tolerance.relative,
            atol=tolerance.absolute,
            equal_nan=True,
        )
    )


def largest_difference(found: Array, expected: Array) -> float | None:
    """Return the largest difference of two arrays, of numbers that are finite in both.

    None where shapes or values can't be compared so.
    """
    if found.shape != expected.shape or expected.dtype.kind not in "fiub":
        return None
    one, other = found.astype(np.float64), expected.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    if not np.isfinite(one[~same]).all():
        return None
    return float(np.abs(one[~same] - other[~same]).max(initial=0.0))
