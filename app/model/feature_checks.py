"""Checks that the features of a manifest are the columns of its inputs, each of values that fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from .columns import LARGEST_EXACT, TensorColumns
from .errors import listed, shown
from .features import Feature
from .manifest import LONGEST_NAME
from .signature import DTYPES, TensorSpec

_KINDS: Mapping[str, str] = {"number": "f", "integer": "fiu", "boolean": "fiub", "category": "fiuO"}
"""By the kind of a feature, numpy's kinds of the tensors that hold its values."""
_NULL_AS = {"O": (str, "a string"), "b": (bool, "true or false")}
"""By numpy's kind of a tensor, what null may become in it; elsewhere an integer."""


def faults_of_features(features: Sequence[Feature], inputs: Sequence[TensorSpec]) -> Iterator[str]:
    """Yield what is wrong with ``features`` as the columns of ``inputs``, one sentence each.

    Every column of every input must be one of them, where there are any. A fault may follow from
    one before it.
    """
    if not features:
        return
    specs = {spec.name: spec for spec in inputs}
    taken: dict[tuple[str, int], str] = {}
    for index, feature in enumerate(features):
        place = f"features[{index}] ({shown(feature.name)})"
        spec = specs.get(feature.tensor)
        if spec is None:
            yield (
                f"{place}: its tensor {shown(feature.tensor)} is not one of the inputs: "
                f"{listed(specs)}."
            )
            continue
        yield from (f"{place}: {fault}" for fault in _faults_of_feature(feature, spec))
        other = taken.setdefault((feature.tensor, feature.column or 0), feature.name)
        if other != feature.name:
            yield f"{place} has the column of {shown(other)}."
    if {feature.name for feature in features} == specs.keys():
        for feature in features:
            if feature.tensor != feature.name:
                yield (
                    f"features: {shown(feature.name)} is the name of another input than its tensor "
                    f"{shown(feature.tensor)}: callers couldn't say which of them they send."
                )
    for spec in inputs:
        width = _columns(spec)
        missing = next((i for i in range(width) if (spec.name, i) not in taken), None)
        if missing is not None or not width:
            yield (
                f"inputs: no feature is the column {missing or 0} of {shown(spec.name)}, whose "
                f"shape is {list(spec.shape)}."
            )


def _columns(spec: TensorSpec) -> int:
    """Return how many columns a tensor has; 0 if it has none."""
    if spec.shape == (-1,):
        return 1
    if len(spec.shape) == 2 and spec.shape[0] == -1:
        return max(spec.shape[1], 0)
    return 0


def _faults_of_feature(feature: Feature, spec: TensorSpec) -> Iterator[str]:
    kind, width = DTYPES[spec.datatype].kind, _columns(spec)
    if not width:
        yield (
            f"{shown(spec.name)} must be of shape [-1] or [-1, columns] to have features as its "
            f"columns; it is {list(spec.shape)}."
        )
    if not (feature.column or 0) < width:
        yield f"{shown(feature.tensor)} has no column {feature.column}."
    if feature.column is None and width != 1:
        yield f"column is missing; {shown(feature.tensor)} has {width}."
    if kind not in _KINDS[feature.kind]:
        yield f"{feature.kind!r} can't be a column of {spec.datatype}."
    yield from _faults_of_range(feature)
    if feature.kind == "category":
        yield from _faults_of_category(feature, spec)
    elif feature.categories or feature.unknown != "refuse":
        yield "categories and unknown are for features of the kind 'category'."
    if feature.nullable and kind != "f":
        yield from _faults_of_null(feature, spec)
    elif feature.null_as is not None:
        yield "null_as is for a nullable feature whose tensor can't hold NaN."
    if feature.example is not None:
        problem = TensorColumns(spec, (feature,)).problem(0, feature.example)
        if problem:
            yield f"example {problem}."


def _faults_of_range(feature: Feature) -> Iterator[str]:
    if not feature.has_range:
        yield "minimum must be at most the maximum."
    ranged = feature.kind in ("number", "integer")
    if not ranged and (feature.minimum, feature.maximum) != (None, None):
        yield f"minimum and maximum are for numbers, and its kind is {feature.kind!r}."


def _faults_of_category(feature: Feature, spec: TensorSpec) -> Iterator[str]:
    if len(set(feature.categories)) != len(feature.categories):
        yield "categories must be unique."
    for index, category in enumerate(feature.categories):
        if len(category) > LONGEST_NAME:
            yield (
                f"categories[{index}] is a string of {len(category):,} characters, which exceeds "
                f"the limit of {LONGEST_NAME}: responses repeat it."
            )
    if feature.unknown == "pass" and spec.datatype != "BYTES":
        yield f"unknown can't be 'pass' where the values are codes, in {spec.datatype}."
    if not feature.categories and feature.unknown == "refuse":
        yield "categories is missing: the strings that the feature may be."
    if spec.datatype != "BYTES" and len(feature.categories) - 1 > _largest(spec):
        yield f"{len(feature.categories):,} categories have no codes in {spec.datatype}."


def _faults_of_null(feature: Feature, spec: TensorSpec) -> Iterator[str]:
    value = feature.null_as
    wanted, words = _NULL_AS.get(DTYPES[spec.datatype].kind, (int, "an integer"))
    if type(value) is not wanted:
        yield (
            f"it is nullable, and {spec.datatype} can't hold NaN: null_as must say, as {words}, "
            "what null becomes."
        )
    elif wanted is int and not _smallest(spec) <= value <= _largest(spec):  # type: ignore[operator]
        yield f"null_as must be from {_smallest(spec):,} to {_largest(spec):,}, in {spec.datatype}."


def _largest(spec: TensorSpec) -> int:
    """Return the largest integer that a tensor of numbers holds exactly, as all before it."""
    exact = LARGEST_EXACT.get(spec.datatype)
    return int(np.iinfo(DTYPES[spec.datatype]).max) if exact is None else exact


def _smallest(spec: TensorSpec) -> int:
    """Return the smallest integer that a tensor of integers holds."""
    return int(np.iinfo(DTYPES[spec.datatype]).min)
