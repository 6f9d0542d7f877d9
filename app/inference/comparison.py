"""A candidate compared with the stable version on the same rows: what they answer, and how fast."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields

import numpy as np

from ..model.model import Model
from ..model.tasks import probabilities_of
from .sample import Matrix


@dataclass(frozen=True, slots=True)
class ShadowResult:
    """A candidate's answers beside those of the stable version.

    ``agreed`` rows have the same class; ``difference`` is the sum over the compared rows of the
    mean absolute difference of their probabilities. ``dropped`` rows were not compared, and
    ``failed`` ones could not be.
    """

    agreed: int = 0
    compared: int = 0
    difference: float = 0.0
    dropped: int = 0
    failed: int = 0

    def __add__(self, other: ShadowResult) -> ShadowResult:
        names = [field.name for field in fields(self)]
        return ShadowResult(*(getattr(self, name) + getattr(other, name) for name in names))


@dataclass(frozen=True, slots=True)
class Timing:
    """The seconds that both versions took for the same single row; see `time_both`."""

    stable: float
    candidate: float


class Incomparable(ValueError):
    """The candidate has other features or classes than the stable version."""


def compare(stable: Model, candidate: Model, matrix: Matrix, probabilities: Matrix) -> ShadowResult:
    """Run ``candidate`` on ``matrix`` (float32 ``(n, width)``, in the order of the stable version's
    features) and compare with its ``probabilities`` ``(n, classes)``.

    Features and classes are matched by name. Raises `Incomparable` if the candidate has others, and
    what its runtime raises.
    """
    rows = _columns_for(stable, candidate, matrix)
    order = [candidate.classes.index(name) for name in stable.classes if name in candidate.classes]
    if not len(order) == len(candidate.classes) == len(stable.classes):
        raise Incomparable("the candidate has other classes")
    answers = probabilities_of(candidate.runtime, rows)[:, order]
    finite = np.isfinite(answers).all(axis=1)
    answers, probabilities = answers[finite], probabilities[finite]
    return ShadowResult(
        agreed=int((answers.argmax(axis=1) == probabilities.argmax(axis=1)).sum()),
        compared=len(answers),
        difference=float(np.abs(answers - probabilities).mean(axis=1).sum()),
        failed=int((~finite).sum()),
    )


def time_both(stable: Model, candidate: Model, row: Matrix) -> Timing:
    """Return how long both versions take for ``row``, float32 ``(1, width)``; raises as `compare`.

    They take turns, and the shortest run counts: the first has cold caches, and other work of the
    machine may delay any of them.
    """
    runs = [
        (_seconds(stable, row), _seconds(candidate, _columns_for(stable, candidate, row)))
        for _ in range(3)
    ]
    return Timing(*map(min, zip(*runs, strict=True)))


def _seconds(model: Model, row: Matrix) -> float:
    started = time.perf_counter()
    probabilities_of(model.runtime, row)
    return time.perf_counter() - started


def _columns_for(stable: Model, candidate: Model, matrix: Matrix) -> Matrix:
    """Return the columns of ``matrix`` in the order of the candidate's features."""
    names = stable.encoder.names
    columns = [names.index(name) for name in candidate.encoder.names if name in names]
    if not len(columns) == len(candidate.encoder.names) == matrix.shape[1]:
        raise Incomparable("the candidate has other features")
    return np.ascontiguousarray(matrix[:, columns])
