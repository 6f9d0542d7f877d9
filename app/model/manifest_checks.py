"""Checks that the parts of a manifest fit each other: files, tensors, task and features.

A manifest is a file, and may have been written by hand. The checks of a part may rely on those
before them: the first fault ends the search.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain

from .errors import BundleError, shown
from .feature_checks import faults_of_features
from .manifest import Manifest, TaskName, check_names
from .signature import LABEL, MAX_TENSORS, PREDICTION, OutputSpec, Role
from .steps.checks import faults_of_steps
from .steps.declaration import files_of

_ANSWERS: Mapping[TaskName, tuple[Role, ...]] = {
    "classification": ("probabilities", "scores"),
    "multilabel": ("probabilities",),
    "regression": ("values",),
    "embedding": ("embedding",),
    "tensors": (),
}
"""The roles of which a network for a task has exactly one output."""
_NAMED: Mapping[str, TaskName] = {
    "classes": "classification",
    "labels": "multilabel",
    "targets": "regression",
}
"""The members that name the columns of the answer, and the task that each is for."""
_DATATYPES: Mapping[Role, tuple[str, ...]] = {
    "probabilities": ("FP32",),
    "scores": ("FP32", "FP64"),
    "values": ("FP32", "FP64"),
    "embedding": ("FP32", "FP64"),
    "label": ("INT64",),
}
"""The datatypes that an answer may have."""
_LARGEST_TENSOR = 2**31 - 1
"""The most values that the fixed dimensions of a tensor may have."""


def answer_roles(task: TaskName) -> tuple[Role, ...]:
    """Return the roles of which a network for ``task`` has exactly one output."""
    return _ANSWERS[task]


def check_meaning(manifest: Manifest) -> None:
    """Raise `BundleError` for parts of a manifest that contradict each other."""
    for place, names in (
        ("inputs", [spec.name for spec in manifest.inputs]),
        ("outputs", [spec.name for spec in manifest.outputs]),
        ("features", [feature.name for feature in manifest.features]),
        ("classes", manifest.classes),
        ("labels", manifest.labels),
        ("targets", [target.name for target in manifest.targets]),
    ):
        check_names(place, names)
    faults = chain(
        _faults_of_files(manifest),
        _faults_of_handler(manifest),
        _faults_of_network(manifest),
        _faults_of_shapes(manifest),
        _faults_of_rows(manifest),
        _faults_of_task(manifest),
        _faults_of_samples(manifest),
        faults_of_features(manifest.features, manifest.inputs),
        faults_of_steps(manifest.steps, manifest.inputs),
    )
    for fault in faults:
        raise BundleError(fault)


def _faults_of_files(manifest: Manifest) -> Iterator[str]:
    outputs = {spec.name for spec in manifest.outputs}
    for name in manifest.tolerances:
        if name not in outputs:
            yield f"tolerances has {shown(name)}, which is not one of the outputs."
    for member, file in (("golden", manifest.golden_file), ("reference", manifest.reference)):
        if file and file not in manifest.files:
            yield f"{member} names {shown(file)}, which files doesn't list."
    for file in files_of(manifest.steps):
        if file not in manifest.files:
            yield f"steps name {shown(file)}, which files doesn't list."


def _faults_of_samples(manifest: Manifest) -> Iterator[str]:
    if manifest.features and manifest.steps:
        yield "steps must be left out where there are features: both would fill the inputs."
    if manifest.steps and not _ANSWERS[manifest.task]:
        yield f"steps must be left out where the task is {manifest.task!r}, which has no answer."
    if manifest.top and manifest.output("probabilities") is None:
        yield "top is for a task whose answer is probabilities."
    if manifest.top > max(len(manifest.classes), len(manifest.labels)):
        yield f"top must be at most the number of classes, and is {manifest.top}."


def _faults_of_handler(manifest: Manifest) -> Iterator[str]:
    handler = manifest.handler
    if handler is None:
        return
    if not handler.file.endswith(".py"):
        yield f"handler.file must be the name of a Python file, not {shown(handler.file)}."
    named = [*handler.all_files, handler.golden]
    for name in named:
        if name not in manifest.files:
            yield f"handler names {shown(name)}, which files doesn't list."
    check_names("handler.files", named)


def _faults_of_network(manifest: Manifest) -> Iterator[str]:
    """Yield what a manifest lacks that describes a network; only a handler may have none."""
    if manifest.has_network:
        if not manifest.golden_file and manifest.golden is None:
            yield "golden must be named like a plain file of the bundle's directory."
        return
    if manifest.handler is None:
        yield (
            f"outputs must be an array of 1 to {MAX_TENSORS} tensors, each with name, datatype and "
            "shape."
        )
    for member in ("inputs", "features", "golden_file", "tolerances"):
        if getattr(manifest, member):
            yield (
                f"{member.removesuffix('_file')} is for a network, and there are no outputs of one."
            )
    if manifest.task != "tensors":
        yield f"task must be 'tensors' where there are no outputs, not {manifest.task!r}."


def _faults_of_shapes(manifest: Manifest) -> Iterator[str]:
    for place, specs in (("inputs", manifest.inputs), ("outputs", manifest.outputs)):
        for spec in specs:
            values = math.prod(size for size in spec.shape if size > 0)
            if values > _LARGEST_TENSOR:
                yield (
                    f"{place}: {shown(spec.name)} would have {values:,} values, which exceeds the "
                    f"limit of {_LARGEST_TENSOR:,}."
                )


def _faults_of_rows(manifest: Manifest) -> Iterator[str]:
    if manifest.takes_samples and not manifest.batch:
        called = "features" if manifest.features else "steps"
        yield f"batch must be true where there are {called}: each sample is a row."
    if manifest.batch and not manifest.inputs:
        yield "batch must be false where there are no inputs, and so no rows."
    for place, specs in (("inputs", manifest.inputs), ("outputs", manifest.outputs)):
        for spec in specs if manifest.batch else ():
            if spec.shape[:1] != (-1,):
                yield (
                    f"{place}: {shown(spec.name)} must have -1 as its first dimension, the rows, "
                    f"where batch is true; it is {list(spec.shape)}."
                )


def _faults_of_task(manifest: Manifest) -> Iterator[str]:
    task = manifest.task
    if not manifest.has_network:  # classes and labels are the handler's
        return
    for member, wanted in _NAMED.items():
        if getattr(manifest, member) and task != wanted:
            yield f"{member} is for the task {wanted!r}, and the task is {task!r}."
        if not getattr(manifest, member) and task == wanted:
            yield f"{member} is missing, which the task {task!r} takes."
    if task == "classification" and len(manifest.classes) == 1:
        yield "classes must be two or more."
    roles = _ANSWERS[task]
    answers = [spec for spec in manifest.outputs if spec.role in roles]
    if roles and len(answers) != 1:
        yield (
            f"outputs must have exactly one of the role {' or '.join(map(repr, roles))} for the "
            f"task {task!r}; {len(answers)} have it."
        )
    labels = [spec for spec in manifest.outputs if spec.role == "label"]
    if len(labels) > 1:
        yield "outputs must have at most one of the role 'label'."
    if task == "tensors" and any(s.role not in ("tensor", "state") for s in manifest.outputs):
        yield "outputs must have the role 'tensor' or 'state' where the task is 'tensors'."
    if labels and task not in ("classification", "multilabel"):
        yield f"outputs: {shown(labels[0].name)} is a label, and the task is {task!r}."
    for spec in answers:
        yield from _faults_of_answer(spec, manifest)
        if manifest.features:
            yield from _faults_of_others(manifest, {spec.role, PREDICTION, LABEL}, [spec, *labels])
    if answers and labels:
        yield from _faults_of_label(labels[0], manifest)


def _faults_of_answer(spec: OutputSpec, manifest: Manifest) -> Iterator[str]:
    place = f"outputs: {shown(spec.name)}"
    if spec.datatype not in _DATATYPES[spec.role]:
        yield f"{place} must be {' or '.join(_DATATYPES[spec.role])}, not {spec.datatype}."
    named = manifest.classes or manifest.labels or manifest.targets
    if named and (len(spec.shape) != 2 or spec.shape[1] != len(named)):
        yield (
            f"{place} must be of shape [-1, {len(named)}], a column for each name; it is "
            f"{list(spec.shape)}."
        )
    if manifest.takes_samples and not (len(spec.shape) > 1 and min(spec.shape[1:]) > 0):
        yield (
            f"{place} must be of shape [-1, ...] with no other dimension that varies or is 0, as "
            f"the answer to samples; it is {list(spec.shape)}."
        )


def _faults_of_others(
    manifest: Manifest, taken: Collection[str], of_task: Sequence[OutputSpec]
) -> Iterator[str]:
    """Yield the faults of outputs beside those of the task, by whose names clients see it."""
    for spec in manifest.outputs:
        if spec not in of_task and spec.name in taken:
            yield (
                f"outputs: {shown(spec.name)} is the name of an output of the task; give that of "
                f"the role {spec.role!r} another."
            )


def _faults_of_label(spec: OutputSpec, manifest: Manifest) -> Iterator[str]:
    wanted = [-1, len(manifest.labels)] if manifest.task == "multilabel" else [-1]
    if spec.datatype != "INT64" or [-1, *spec.shape[1:]] != wanted:
        yield f"outputs: {shown(spec.name)} must be INT64 of shape {wanted}, as labels are."
