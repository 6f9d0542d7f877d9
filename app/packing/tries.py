"""Inputs on which the served graph is compared with the original: the samples, and noise around
them that stays in what the inputs may hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..model.columns import TensorColumns
from ..model.features import Feature
from ..model.signature import Array, Tensors, row_count
from .material import Material

_NOISY_ROWS = 600
_MOST_VALUES = 2_000_000
"""The most values of noise: a row may be very wide."""
_NULLS = 0.3
"""The share of the values of nullable features that are null, in half of the noise."""


def tries(material: Material) -> Tensors:
    """Return the samples and noise around them, as rows; without rows, the samples alone."""
    samples = material.tried
    if not material.features:
        return samples
    random = np.random.default_rng(0)
    width = sum(columns.width for columns in material.encoder.tensors)
    rows = max(2, min(_NOISY_ROWS, _MOST_VALUES // width))
    drawn = random.integers(row_count(samples), size=rows)
    noise = {
        columns.spec.name: _noisy(columns, samples[columns.spec.name], drawn, random)
        for columns in material.encoder.tensors
    }
    return {name: np.concatenate([samples[name], noise[name]]) for name in samples}


def _noisy(
    columns: TensorColumns, samples: Array, drawn: Array, random: np.random.Generator
) -> Array:
    """Return rows like ``samples``: numbers around them, in the range seen; else values seen."""
    noisy = samples[drawn].reshape(len(drawn), -1)
    given = samples.reshape(len(samples), -1)
    numbers = [i for i, f in enumerate(columns.features) if f.kind == "number"]
    others = [i for i, f in enumerate(columns.features) if f.kind != "number"]
    if numbers and columns.dtype.kind == "f":
        factor = random.normal(1.0, 0.5, size=(len(drawn), len(numbers)))
        moved = noisy[:, numbers].astype(np.float64) * factor
        low, high = _bounds(columns.features, numbers)
        noisy[:, numbers] = columns.held(np.clip(moved, low, high))
    for index in others:  # any value of a sample, whatever the others are
        noisy[:, index] = given[random.integers(len(given), size=len(drawn)), index]
    half = len(drawn) // 2
    for index in np.flatnonzero(columns.nullable).tolist():
        null = random.random(size=len(drawn) - half) < _NULLS
        feature = columns.features[index]
        noisy[half:, index][null] = np.nan if columns.dtype.kind == "f" else feature.null_as
    return noisy.reshape(len(drawn), *samples.shape[1:])


def _bounds(features: Sequence[Feature], numbers: list[int]) -> tuple[Array, Array]:
    low = [features[index].minimum for index in numbers]
    high = [features[index].maximum for index in numbers]
    return (
        np.array([-np.inf if value is None else value for value in low]),
        np.array([np.inf if value is None else value for value in high]),
    )
