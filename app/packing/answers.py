"""A classifier of one matrix, run: probabilities of rows."""

from __future__ import annotations

from ..model.runtime import Runtime
from ..model.signature import FEATURES, PROBABILITIES, Array


def probabilities_of(runtime: Runtime, matrix: Array) -> Array:
    """Return the probabilities ``(n, classes)`` of raw features ``(n, width)``, both float32."""
    return runtime.run({FEATURES: matrix})[PROBABILITIES]
