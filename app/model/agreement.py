"""Agreement: whether two versions of a model answer the same rows alike, whatever their task.

Features, and classes, labels or targets, are matched by name. What is compared is in
`app.model.predictions`: the numbers of an answer, and what was decided of them.
"""

from __future__ import annotations

import numpy as np

from .errors import ModelError
from .manifest import EXACT, Manifest
from .model import Model
from .predictions import DECIDED, VALUES
from .signature import Array, Tensors, row_count
from .steps.declaration import members_of


class Incomparable(ModelError):
    """The candidate has another task, or other features, kinds of steps, classes, labels or
    targets.
    """


def check_comparable(stable: Manifest, candidate: Manifest) -> None:
    """Raise `Incomparable` for a candidate of another task, or with other names."""
    if stable.handler or candidate.handler:
        raise Incomparable("The answers of a handler are its own.")
    if stable.task != candidate.task:
        raise Incomparable("The versions have different tasks.")
    if members_of(stable.steps) != members_of(candidate.steps):
        raise Incomparable("The versions don't both take the same images and texts.")
    for called in ("features", "classes", "labels", "targets"):
        ours, theirs = (
            {getattr(each, "name", each) for each in getattr(manifest, called)}
            for manifest in (stable, candidate)
        )
        if ours != theirs:
            raise Incomparable(f"The versions have different {called}.")


def answers_for(stable: Model, candidate: Model, outputs: Tensors) -> Tensors:
    """Return what the candidate answers with ``outputs``, with the classes, labels or targets in
    the order of the stable version.
    """
    batch = candidate.task.batch(outputs, candidate.version, candidate.loaded_at)
    found, ours, theirs = batch.comparable(), stable.task.columns, candidate.task.columns
    if ours is None or theirs is None or ours == theirs:
        return found
    ordered = {VALUES: found[VALUES][:, [theirs.index(name) for name in ours]]}
    if DECIDED in found:
        decided = found[DECIDED]
        ordered[DECIDED] = (
            np.array([ours.index(name) for name in theirs])[decided]  # the index of a class
            if decided.ndim == 1
            else decided[:, [theirs.index(name) for name in ours]]
        )
    return ordered


def agreement(model: Model, ours: Tensors, theirs: Tensors) -> Array:
    """Return, for each row, whether two answers of the task of ``model`` are the same: the class,
    the labels that apply, or numbers within the tolerance of its manifest.
    """
    same: Array
    if DECIDED in ours:
        same = np.equal(ours[DECIDED], theirs[DECIDED])
    else:
        answer = model.manifest.output("values", "embedding")
        allowed = model.manifest.tolerance(answer.name) if answer is not None else EXACT
        size = np.abs(ours[VALUES].astype(np.float64)).reshape(row_count(ours), -1)
        same = differences(ours, theirs) <= allowed.absolute + allowed.relative * size
    return np.asarray(same.reshape(row_count(ours), -1).all(axis=1))


def differences(ours: Tensors, theirs: Tensors) -> Array:
    """Return the absolute differences of the numbers in two answers, float64 ``(n, numbers)``.

    Raises `Incomparable` where one has more of them.
    """
    before, after = (each[VALUES].astype(np.float64) for each in (ours, theirs))
    if before.shape != after.shape:
        raise Incomparable("The versions answer arrays of different shapes.")
    return np.abs(before - after).reshape(row_count(ours), -1)
