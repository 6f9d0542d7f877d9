"""The differences between two versions of a model: schema, training metrics, answers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..model import isolation, manifest_file
from ..model.agreement import (
    Incomparable,
    agreement,
    answers_for,
    check_comparable,
    differences,
)
from ..model.compat import breaking_changes, harmless_changes
from ..model.errors import BundleError, InvalidFeatures, ModelError
from ..model.isolation import DEFAULT_LIMITS, ProcessLimits
from ..model.manifest import Manifest
from ..model.model import Model
from ..model.self_test import is_close, largest_difference
from ..model.signature import Array, Tensors
from ..model.training_metrics import flatten
from .code_diff import code_changes
from .loading import ModelSource, load_model


@dataclass(frozen=True, slots=True)
class Agreement:
    """The answers of two versions to the same ``samples``.

    ``agreed`` is the share (0 to 1) to which both give the same answer: the same class, the same
    labels, or numbers within the tolerance of the old version. The differences are absolute ones of
    the numbers in the answers, over all samples; None where they can't be compared, as scores with
    probabilities. Of tensors without a meaning a sample is all the golden data of a version, and
    its difference the largest of each output.
    """

    samples: int
    agreed: float
    largest_difference: float | None
    mean_difference: float | None


@dataclass(frozen=True, slots=True)
class VersionDiff:
    """The differences between ``new`` and ``old``.

    ``breaking`` and ``harmless`` are sentences; ``training_metrics`` has the pairs of values that
    differ, by dotted name, None where one lacks the metric. ``agreement`` is None if the answers
    can't be compared; ``incomparable`` then says why. ``code`` are the lines of a unified diff of
    their code.
    """

    old: Manifest
    new: Manifest
    breaking: tuple[str, ...]
    harmless: tuple[str, ...]
    training_metrics: dict[str, tuple[Any, Any]]
    agreement: Agreement | None
    incomparable: str
    code: tuple[str, ...] = ()


def diff_versions(
    directory: Path, old_version: str, new_version: str, limits: ProcessLimits = DEFAULT_LIMITS
) -> VersionDiff:
    """Compare two versions of the model in ``directory``, and their answers to the golden data of
    both.

    They answer in a separate process, within ``limits``. Raises `BundleError` if a manifest can't
    be read.
    """
    old, new = (
        manifest_file.read_manifest(directory / version / manifest_file.FILE_NAME)
        for version in (old_version, new_version)
    )
    agreement, incomparable = None, ""
    try:
        check_comparable(old, new)
        newer = directory / new_version
        agreement = Agreement(
            **isolation.run(_answers_of, directory / old_version, newer, path=newer, limits=limits)
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
        tuple(code_changes(directory, old_version, new_version)),
    )


def _answers_of(old: Path, new: Path) -> dict[str, Any]:
    """Return the `Agreement` of two bundles, as plain values."""
    models = [load_model(ModelSource(path, path.name)) for path in (old, new)]
    try:
        return asdict(_agreement(*models))
    except ModelError as error:
        raise BundleError(str(error)) from error


def _agreement(old: Model, new: Model) -> Agreement:
    """Return how both answer, with features, and classes, labels or targets, matched by name."""
    compared = [
        _compared(old, new, old.run(before), new.run(after))
        for before, after in _common_inputs(old, new)
    ]
    agreed = np.concatenate([agreed for agreed, _ in compared])
    found = np.concatenate([found.reshape(-1) for _, found in compared])
    same_role = old.task.answer_role == new.task.answer_role
    is_known = found.size and np.isfinite(found).all() and same_role
    return Agreement(
        len(agreed),
        float(agreed.mean()),
        float(found.max()) if is_known else None,
        float(found.mean()) if is_known else None,
    )


def _common_inputs(old: Model, new: Model) -> Iterator[tuple[Tensors, Tensors]]:
    """Yield the golden data of both versions, as each of them takes it."""
    if old.takes_features:
        samples = _common_samples(old, new)
        yield old.encoder.encode_batch(samples), new.encoder.encode_batch(samples)
        return
    if old.steps is not None and new.steps is not None:
        sent = list(dict.fromkeys((*old.golden().samples, *new.golden().samples)))
        yield old.steps.encode(sent), new.steps.encode(sent)
        return
    if {s.name: s.form for s in old.manifest.inputs} != {
        s.name: s.form for s in new.manifest.inputs
    }:
        raise Incomparable("The versions take different inputs.")
    for model in (old, new):
        inputs = model.golden().inputs
        yield inputs, inputs


def _compared(old: Model, new: Model, ours: Tensors, theirs: Tensors) -> tuple[Array, Array]:
    """Return whether each row is answered alike, and the differences of the numbers.

    Tensors whose meaning isn't known are one row: all outputs that both have.
    """
    if old.task.name != "tensors":
        before = old.task.batch(ours, old.version, old.loaded_at).comparable()
        after = answers_for(old, new, theirs)
        return agreement(old, before, after), differences(before, after)
    names = [name for name in ours if name in theirs]
    same = all(
        ours[name].shape == theirs[name].shape
        and is_close(theirs[name], ours[name], old.manifest.tolerance(name))
        for name in names
    )
    largest = [
        math.nan if difference is None else difference
        for name in names
        if ours[name].dtype.kind != "O"
        for difference in [largest_difference(theirs[name], ours[name])]
    ]
    return np.array([same]), np.array(largest)


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
