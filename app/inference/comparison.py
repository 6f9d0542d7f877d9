"""A candidate compared with the stable version on the same rows: what they answer, and how fast."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields

import numpy as np

from ..model.manifest import EXACT
from ..model.model import Model
from ..model.signature import Array, Tensors, row_count
from ..model.tasks import THRESHOLD


@dataclass(frozen=True, slots=True)
class ShadowResult:
    """A candidate's answers beside those of the stable version.

    ``agreed`` rows have the same class, labels or values (see `agreement`); ``difference`` is the
    sum over the compared rows of the mean absolute difference of the numbers in their answers.
    ``dropped`` rows were not compared, and ``failed`` ones could not be.
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


def compare(stable: Model, candidate: Model, rows: Tensors, answers: Array) -> ShadowResult:
    """Run ``candidate`` on ``rows`` of the stable version, and compare with its ``answers``.

    Features, and classes, labels or targets, are matched by name. Raises `Incomparable` if the
    candidate has others, and what its runtime raises.
    """
    order = _order(stable, candidate)
    theirs = candidate.task.answers(candidate.runtime.run(rows_for(stable, candidate, rows)))
    if order is not None:
        theirs = theirs[:, order]
    finite = np.isfinite(theirs.reshape(len(theirs), -1)).all(axis=1)
    ours, theirs = answers[finite], theirs[finite]
    return ShadowResult(
        agreed=int(np.count_nonzero(agreement(stable, ours, theirs))),
        compared=len(theirs),
        difference=float(differences(ours, theirs).sum()),
        failed=int((~finite).sum()),
    )


def agreement(model: Model, ours: Array, theirs: Array) -> Array:
    """Return, for each row, whether two answers of the task of ``model`` are the same: the class,
    the labels that apply, or numbers within the tolerance of its manifest.
    """
    same: Array
    if model.task.name == "classification":
        same = ours.argmax(axis=1) == theirs.argmax(axis=1)
    elif model.task.name == "multilabel":
        same = ((ours >= THRESHOLD) == (theirs >= THRESHOLD)).all(axis=1)
    else:
        answer = model.manifest.output("values", "embedding")
        allowed = model.manifest.tolerance(answer.name) if answer is not None else EXACT
        near = np.abs(ours - theirs) <= allowed.absolute + allowed.relative * np.abs(ours)
        same = near.reshape(len(ours), -1).all(axis=1)
    return same


def differences(ours: Array, theirs: Array) -> Array:
    """Return, for each row, the mean absolute difference of the numbers in two answers."""
    mean: Array = np.abs(ours - theirs).reshape(len(ours), -1).mean(axis=1, dtype=np.float64)
    return mean


def _order(stable: Model, candidate: Model) -> list[int] | None:
    """Return the columns of the candidate's answers in the order of the stable version's.

    None where they have no names. Raises `Incomparable` for other names.
    """
    if stable.task.name != candidate.task.name:
        raise Incomparable("the candidate has another task")
    ours, theirs = stable.task.columns, candidate.task.columns
    if ours is None or theirs is None:
        return None
    if sorted(ours) != sorted(theirs):
        raise Incomparable("the candidate has other classes")
    return [theirs.index(name) for name in ours]


def time_both(stable: Model, candidate: Model, row: Tensors) -> Timing:
    """Return how long both versions take for ``row``, of one row; raises as `compare`.

    They take turns, and the shortest run counts: the first has cold caches, and other work of the
    machine may delay any of them.
    """
    theirs = rows_for(stable, candidate, row)
    runs = [(_seconds(stable, row), _seconds(candidate, theirs)) for _ in range(3)]
    return Timing(*map(min, zip(*runs, strict=True)))


def _seconds(model: Model, row: Tensors) -> float:
    started = time.perf_counter()
    model.runtime.run(row)
    return time.perf_counter() - started


def rows_for(stable: Model, candidate: Model, rows: Tensors) -> Tensors:
    """Return ``rows`` of the stable version as the candidate takes them, by the names of the
    features. Raises `Incomparable`.
    """
    ours, theirs = stable.encoder, candidate.encoder
    if sorted(ours.names) != sorted(theirs.names):
        raise Incomparable("the candidate has other features")
    if ours.places == theirs.places:
        return rows
    if ours.is_matrix and theirs.is_matrix:
        columns = [ours.names.index(name) for name in theirs.names]
        matrix = rows[ours.tensors[0].spec.name][:, columns]
        into = theirs.tensors[0]
        return {into.spec.name: np.ascontiguousarray(matrix, dtype=into.dtype)}
    samples = [ours.sample(rows, index) for index in range(row_count(rows))]
    return theirs.encode_batch(samples)
