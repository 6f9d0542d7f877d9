"""The differences between two versions of a model: schema, training metrics, answers."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..inference.comparison import agreement, differences
from ..model import isolation, manifest_file
from ..model.compat import breaking_changes, harmless_changes
from ..model.errors import BundleError, InvalidFeatures, ModelError
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
        manifest_file.read_manifest(directory / version / manifest_file.FILE_NAME)
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
    if not (old.features and new.features):
        return "Without features, the outputs mean what the caller knows."
    if old.task != new.task:
        return "The versions have different tasks."
    if {f.name for f in old.features} != {f.name for f in new.features}:
        return "The versions have different features."
    for called in ("classes", "labels", "targets"):
        if _names(old, called) != _names(new, called):
            return f"The versions have different {called}."
    return ""


def _names(manifest: Manifest, called: str) -> set[str]:
    return {getattr(each, "name", each) for each in getattr(manifest, called)}


def _answers_of(old: Path, new: Path) -> dict[str, Any]:
    """Return the `Agreement` of two bundles, as plain values."""
    return asdict(_agreement(*(load_model(ModelSource(path, path.name)) for path in (old, new))))


def _agreement(old: Model, new: Model) -> Agreement:
    """Return how both answer, with features and classes matched by name."""
    samples = _common_samples(old, new)
    ours = old.predict_batch(old.encoder.encode_batch(samples)).answers
    theirs = new.predict_batch(new.encoder.encode_batch(samples)).answers
    if old.task.columns is not None and new.task.columns is not None:
        theirs = theirs[:, [new.task.columns.index(name) for name in old.task.columns]]
    return Agreement(
        len(samples),
        float(agreement(old, ours, theirs).mean()),
        float(np.abs(ours - theirs).max()),
        float(differences(ours, theirs).mean()),
    )


def _common_samples(old: Model, new: Model) -> list[dict[str, Any]]:
    """Return the golden samples of both versions that both accept, each once.

    A null is an error to the version whose feature isn't nullable, as is an unknown category.
    """
    different: dict[Hashable, dict[str, Any]] = {}
    for model in (old, new):
        golden = model.golden()
        for index in range(golden.rows):
            sample = model.encoder.sample(golden.inputs, index)
            with suppress(InvalidFeatures):
                new.encoder.encode(sample)
                different.setdefault(old.encoder.key(old.encoder.encode(sample)), sample)
    if not different:
        raise BundleError("No golden sample is accepted by both versions.")
    return [*different.values()]
