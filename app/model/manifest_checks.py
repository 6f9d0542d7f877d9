"""Whether the parts of a manifest fit each other: features and inputs, outputs and task.

A manifest is a file, and may have been written by hand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from .errors import BundleError, listed, shown
from .features import Feature
from .manifest import Manifest, TaskName, check_names
from .signature import DTYPES, LABEL, PREDICTION, OutputSpec, Role, TensorSpec

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
_KINDS: Mapping[str, str] = {"number": "f", "integer": "fiu", "boolean": "fiub", "category": "fiuO"}
"""By the kind of a feature, numpy's kinds of the tensors that hold its values."""


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
    for fault in (
        *_faults_of_files(manifest),
        *_faults_of_rows(manifest),
        *_faults_of_task(manifest),
    ):
        raise BundleError(fault)
    if manifest.features:
        for fault in _faults_of_features(manifest):
            raise BundleError(fault)


def _faults_of_files(manifest: Manifest) -> Iterator[str]:
    outputs = {spec.name for spec in manifest.outputs}
    for name in manifest.tolerances:
        if name not in outputs:
            yield f"tolerances has {shown(name)}, which is not one of the outputs."
    for member, file in (("golden", manifest.golden_file), ("reference", manifest.reference)):
        if file and file not in manifest.files:
            yield f"{member} names {shown(file)}, which files doesn't list."


def _faults_of_rows(manifest: Manifest) -> Iterator[str]:
    if not manifest.batch:
        return
    for place, specs in (("inputs", manifest.inputs), ("outputs", manifest.outputs)):
        for spec in specs:
            if spec.shape[:1] != (-1,):
                yield (
                    f"{place}: {shown(spec.name)} must have -1 as its first dimension, the rows, "
                    f"where batch is true; it is {list(spec.shape)}."
                )


def _faults_of_task(manifest: Manifest) -> Iterator[str]:
    task = manifest.task
    if manifest.batch and not manifest.inputs:
        yield "batch must be false where there are no inputs, and so no rows."
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
    if spec.datatype != "INT64" or len(spec.shape) != len(wanted):
        yield f"outputs: {shown(spec.name)} must be INT64 of shape {wanted}, as labels are."


def _faults_of_features(manifest: Manifest) -> Iterator[str]:
    if not manifest.batch:
        yield "batch must be true where there are features: each sample is a row."
    inputs = {spec.name: spec for spec in manifest.inputs}
    taken: dict[tuple[str, int], str] = {}
    for index, feature in enumerate(manifest.features):
        place = f"features[{index}] ({shown(feature.name)})"
        spec = inputs.get(feature.tensor)
        if spec is None:
            yield (
                f"{place}: its tensor {shown(feature.tensor)} is not one of the inputs: "
                f"{listed(inputs)}."
            )
            continue
        yield from (f"{place}: {fault}" for fault in _faults_of_feature(feature, spec))
        other = taken.setdefault((feature.tensor, feature.column or 0), feature.name)
        if other != feature.name:
            yield f"{place} has the column of {shown(other)}."
    if {feature.name for feature in manifest.features} == inputs.keys():
        for feature in manifest.features:
            if feature.tensor != feature.name:
                yield (
                    f"features: {shown(feature.name)} is the name of another input than its tensor "
                    f"{shown(feature.tensor)}: callers couldn't say which of them they send."
                )
    for spec in manifest.inputs:
        width = _columns(spec)
        if width is None:
            yield (
                f"inputs: {shown(spec.name)} must be of shape [-1] or [-1, columns] to have "
                f"features as its columns; it is {list(spec.shape)}."
            )
            continue
        missing = next((i for i in range(width) if (spec.name, i) not in taken), None)
        if missing is not None:
            yield f"inputs: no feature is the column {missing} of {shown(spec.name)}."


def _columns(spec: TensorSpec) -> int | None:
    """Return how many columns a tensor has; None if it has none."""
    if spec.shape == (-1,):
        return 1
    if len(spec.shape) == 2 and spec.shape[0] == -1 and spec.shape[1] > 0:
        return spec.shape[1]
    return None


def _faults_of_feature(feature: Feature, spec: TensorSpec) -> Iterator[str]:
    kind = DTYPES[spec.datatype].kind
    width = _columns(spec) or 0
    if not feature.has_range:
        yield "minimum must be at most the maximum."
    if not (feature.column or 0) < width:
        yield f"{shown(feature.tensor)} has no column {feature.column}."
    if feature.column is None and width != 1:
        yield f"column is missing; {shown(feature.tensor)} has {width}."
    if kind not in _KINDS[feature.kind]:
        yield f"{feature.kind!r} can't be a column of {spec.datatype}."
    if feature.kind == "category":
        yield from _faults_of_category(feature, spec)
    elif feature.categories or feature.unknown != "refuse":
        yield "categories and unknown are for features of the kind 'category'."
    if feature.nullable and kind != "f":
        yield from _faults_of_null(feature, spec)
    elif feature.null_as is not None:
        yield "null_as is for a nullable feature whose tensor can't hold NaN."


def _faults_of_category(feature: Feature, spec: TensorSpec) -> Iterator[str]:
    if len(set(feature.categories)) != len(feature.categories):
        yield "categories must be unique."
    if feature.unknown == "pass" and spec.datatype != "BYTES":
        yield f"unknown can't be 'pass' where the values are codes, in {spec.datatype}."
    if not feature.categories and feature.unknown == "refuse":
        yield "categories is missing: the strings that the feature may be."


def _faults_of_null(feature: Feature, spec: TensorSpec) -> Iterator[str]:
    kind, value = DTYPES[spec.datatype].kind, feature.null_as
    wanted = {"O": str, "b": bool}.get(kind, int)
    if type(value) is not wanted:
        yield (
            f"it is nullable, and {spec.datatype} can't hold NaN: null_as must say, as "
            f"{ {str: 'a string', bool: 'true or false', int: 'an integer'}[wanted] }, what null "
            "becomes."
        )
