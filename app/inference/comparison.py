"""A candidate compared with the stable version on the same rows: what they answer, and how fast."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields

import numpy as np

from ..model.agreement import (
    Incomparable,
    agreement,
    answers_for,
    check_comparable,
    differences,
)
from ..model.encoder import FeatureEncoder
from ..model.model import Model
from ..model.signature import Tensors, row_count, select_rows
from ..model.steps.declaration import files_of


@dataclass(frozen=True, slots=True)
class ShadowResult:
    """A candidate's answers beside those of the stable version.

    ``agreed`` rows have the same answer (see `agreement`); ``difference`` is the sum over the
    compared rows of the mean absolute difference of the numbers in their answers. ``dropped`` rows
    were not compared, and ``failed`` ones could not be.
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


def compare(stable: Model, candidate: Model, rows: Tensors, answers: Tensors) -> ShadowResult:
    """Run ``candidate`` on ``rows`` of the stable version, and compare with its ``answers``.

    Features, and classes, labels or targets, are matched by name. Raises `Incomparable` if the
    candidate has others, and what its runtime raises.
    """
    check_comparable(stable.manifest, candidate.manifest)
    outputs = candidate.runtime.run(rows_for(stable, candidate, rows))
    numbers = candidate.task.answers(outputs).reshape(row_count(rows), -1)
    finite = np.asarray(np.isfinite(numbers).all(axis=1))
    failed = int((~finite).sum())
    if failed == row_count(rows):
        return ShadowResult(failed=failed)
    if failed:
        outputs, answers = select_rows(outputs, finite), select_rows(answers, finite)
    theirs = answers_for(stable, candidate, outputs)
    return ShadowResult(
        agreed=int(np.count_nonzero(agreement(stable, answers, theirs))),
        compared=row_count(answers),
        difference=float(differences(answers, theirs).mean(axis=1).sum()),
        failed=failed,
    )


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
    features. Raises `InvalidFeatures` for a value that the candidate doesn't accept, and
    `Incomparable` where it makes rows of images or texts by other steps: the samples are gone.
    """
    if _steps_of(stable) != _steps_of(candidate):
        raise Incomparable("The versions make rows of images or texts by different steps.")
    ours, theirs = stable.encoder, candidate.encoder
    if _have_same_rows(ours, theirs):
        return rows
    if ours.is_matrix and theirs.is_matrix:
        (source,), (target,) = ours.tensors, theirs.tensors
        if source.dtype == target.dtype:
            columns = [ours.names.index(name) for name in theirs.names]
            return {target.spec.name: np.ascontiguousarray(rows[source.spec.name][:, columns])}
    return theirs.encode_batch([ours.sample(rows, index) for index in range(row_count(rows))])


def _steps_of(model: Model) -> object:
    """Return all that the rows of images and texts depend on; None for a model without steps."""
    manifest = model.manifest
    if not manifest.steps:
        return None
    files = [manifest.files[name].sha256 for name in files_of(manifest.steps)]
    return manifest.steps, manifest.inputs, files


def _have_same_rows(ours: FeatureEncoder, theirs: FeatureEncoder) -> bool:
    """Return True if both put each value of a feature into the same place, in the same form."""

    def forms(encoder: FeatureEncoder) -> dict[str, object]:
        return {
            feature.name: (feature.kind, feature.categories, feature.nullable, feature.null_as)
            for feature in encoder.features
        }

    return ours.places == theirs.places and forms(ours) == forms(theirs)
