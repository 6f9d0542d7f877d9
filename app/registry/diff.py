"""The differences between two versions of a model: schema, training metrics, answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model import isolation
from ..model import manifest as manifests
from ..model.compat import breaking_changes, harmless_changes
from ..model.errors import BundleError, ModelError
from ..model.isolation import DEFAULT_LIMITS, ProcessLimits
from ..model.manifest import Manifest
from ..model.model import Model
from ..model.training_metrics import flatten
from .loading import ModelSource, load_model


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two versions answered the same ``samples``.

    ``same_class`` is the share (0 to 1) on which both predict the same class; the differences are
    absolute differences of probabilities, over all samples and classes.
    """

    samples: int
    same_class: float
    largest_difference: float
    mean_difference: float


@dataclass(frozen=True, slots=True)
class VersionDiff:
    """The differences between ``new`` and ``old``.

    ``breaking`` and ``harmless`` are sentences; ``training_metrics`` has the pairs of values that
    differ, by dotted name, None where one lacks the metric. ``agreement`` is None if the answers
    can't be compared; ``incomparable`` then says why.
    """

    old: Manifest
    new: Manifest
    breaking: tuple[str, ...]
    harmless: tuple[str, ...]
    training_metrics: dict[str, tuple[Any, Any]]
    agreement: Agreement | None
    incomparable: str


def diff_versions(
    directory: Path, old_version: str, new_version: str, limits: ProcessLimits = DEFAULT_LIMITS
) -> VersionDiff:
    """Compare two versions of the model in ``directory``, and their answers to the golden samples
    of both.

    They answer in a separate process, within ``limits``. Raises `BundleError` if a manifest can't
    be read.
    """
    old, new = (
        manifests.read_manifest(directory / version / manifests.FILE_NAME)
        for version in (old_version, new_version)
    )
    agreement, incomparable = None, _obstacle(old, new)
    if not incomparable:
        try:
            newer = directory / new_version
            agreement = Agreement(
                **isolation.run(
                    _answers_of, directory / old_version, newer, path=newer, limits=limits
                )
            )
        except ModelError as error:
            incomparable = str(error)
    before, after = flatten(old.training), flatten(new.training)
    return VersionDiff(
        old,
        new,
        tuple(breaking_changes(old, new)),
        tuple(harmless_changes(old, new)),
        {
            name: (before.get(name), after.get(name))
            for name in {**before, **after}
            if before.get(name) != after.get(name)
        },
        agreement,
        incomparable,
    )


def _obstacle(old: Manifest, new: Manifest) -> str:
    """Return why the two can't be compared; empty if they can."""
    if "tensors" in (old.task, new.task):
        return "The outputs of the task 'tensors' mean what the caller knows."
    if {f.name for f in old.features} != {f.name for f in new.features}:
        return "The versions have different features."
    if set(old.classes) != set(new.classes):
        return "The versions have different classes."
    return ""


def _answers_of(old: Path, new: Path) -> dict[str, Any]:
    """Return the `Agreement` of two bundles, as plain values."""
    return asdict(_agreement(*(load_model(ModelSource(path, path.name)) for path in (old, new))))


def _agreement(old: Model, new: Model) -> Agreement:
    """Return how both answer, with columns and classes matched by name."""
    columns = [new.encoder.names.index(name) for name in old.encoder.names]
    classes = [new.manifest.classes.index(name) for name in old.manifest.classes]
    samples = _common_samples(old, new, columns)
    answers = old.predict_batch(samples).probabilities
    in_new_order = np.empty_like(samples)
    in_new_order[:, columns] = samples
    others = new.predict_batch(in_new_order).probabilities[:, classes]
    difference = np.abs(answers - others)
    return Agreement(
        len(samples),
        float((answers.argmax(axis=1) == others.argmax(axis=1)).mean()),
        float(difference.max()),
        float(difference.mean()),
    )


def _common_samples(old: Model, new: Model, columns: list[int]) -> NDArray[np.float32]:
    """Return the golden samples of both versions that both accept, in the columns of ``old``.

    A null is an error to the version whose feature isn't nullable.
    """
    assert old.manifest.golden is not None
    assert new.manifest.golden is not None
    samples = np.concatenate([old.manifest.golden.samples, new.manifest.golden.samples[:, columns]])
    nullable = np.array(
        [
            before.nullable and new.manifest.features[column].nullable
            for before, column in zip(old.manifest.features, columns, strict=True)
        ]
    )
    accepted = ~(np.isnan(samples) & ~nullable).any(axis=1)
    if not accepted.any():
        raise BundleError("No golden sample is accepted by both versions.")
    different = {row.tobytes(): row for row in samples[accepted]}  # a NaN equals no other
    return np.stack(list(different.values()))
