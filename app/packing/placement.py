"""The places of features among the inputs of a model: tensor, column and kind of each."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ..model.errors import BundleError, listed, shown
from ..model.features import Feature, Kind
from ..model.signature import DTYPES, TensorSpec
from .faults import Faults

_KINDS: dict[str, Kind] = {"f": "number", "i": "integer", "u": "integer", "b": "boolean"}
"""By numpy's kind of a tensor, what its columns are where nothing else is said."""


def placed(
    features: Sequence[Feature], stated: Sequence[frozenset[str]], inputs: Sequence[TensorSpec]
) -> tuple[tuple[Feature, ...], tuple[TensorSpec, ...]]:
    """Return ``features`` with the tensor, the column and the kind of each, and the inputs with the
    sizes that follow from them.

    ``stated`` says, for each feature, which of its members its owner gave. Raises `BundleError`,
    which names what is missing.
    """
    faults = Faults()
    found = _in_tensors(features, stated, inputs, faults)
    by_name = {spec.name: spec for spec in inputs}
    with_kinds = [
        _with_kind(feature, by_name[feature.tensor], "kind" in said)
        for feature, said in zip(found, stated, strict=True)
    ]
    for spec in inputs:
        if DTYPES[spec.datatype].kind == "O":
            faults.attempt(_check_strings, spec, with_kinds)
    faults.check()
    counts: dict[str, int] = {}
    for feature in with_kinds:
        counts[feature.tensor] = counts.get(feature.tensor, 0) + 1
    return tuple(with_kinds), tuple(_sized(spec, counts.get(spec.name, 0)) for spec in inputs)


def _in_tensors(
    features: Sequence[Feature],
    stated: Sequence[frozenset[str]],
    inputs: Sequence[TensorSpec],
    faults: Faults,
) -> list[Feature]:
    """Return the features with their tensors and columns; add the faults that these may have."""
    says_tensor = ["tensor" in said for said in stated]
    if any(says_tensor):
        return _by_tensor(features, stated, inputs, faults)
    if len(inputs) == 1:
        (only,) = inputs
        faults.attempt(_check_width, only, len(features))
        return [
            replace(
                feature,
                tensor=only.name,
                column=feature.column if "column" in said else index,
            )
            for index, (feature, said) in enumerate(zip(features, stated, strict=True))
        ]
    names = {spec.name for spec in inputs}
    if {feature.name for feature in features} == names and all(map(_is_column, inputs)):
        return [replace(feature, tensor=feature.name, column=None) for feature in features]
    raise BundleError(_ask_for_tensors(features, inputs))


def _ask_for_tensors(features: Sequence[Feature], inputs: Sequence[TensorSpec]) -> str:
    described = listed(f"{spec.name} {list(spec.shape)}" for spec in inputs)
    if all(map(_is_column, inputs)):
        names = {feature.name for feature in features}
        missing = [spec.name for spec in inputs if spec.name not in names]
        unknown = [f.name for f in features if f.name not in {spec.name for spec in inputs}]
        faults = [
            f"{role} is called {listed(names)}"
            for role, names in (("no feature", missing), ("no input", unknown))
            if names
        ]
        return (
            f"Each input of the model is a column of its own, {listed(s.name for s in inputs)}, "
            f"and {'; '.join(faults)}. Name the features as the inputs, or say tensor = ... for "
            "each."
        )
    first = shown(inputs[0].name).replace("'", '"')
    return (
        f"The model has {len(inputs)} inputs: {described}. Which feature is a column of which "
        f"can't be known from the file: add tensor = {first}, or the other's name, to each table "
        "of [[features]]."
    )


def _by_tensor(
    features: Sequence[Feature],
    stated: Sequence[frozenset[str]],
    inputs: Sequence[TensorSpec],
    faults: Faults,
) -> list[Feature]:
    specs = {spec.name: spec for spec in inputs}
    pairs = [*zip(features, stated, strict=True)]
    missing = [repr(feature.name) for feature, said in pairs if "tensor" not in said]
    if missing:
        faults.add(
            f"{_called(missing)}: tensor is missing; where one feature has it, all must: one of "
            f"{listed(specs)}."
        )
    for feature, said in pairs:
        if "tensor" in said and feature.tensor not in specs:
            faults.add(
                f"feature {feature.name!r}: tensor {shown(feature.tensor)} is not an input of the "
                f"model: {listed(specs)}."
            )
    faults.check()  # the rest depends on it
    counts = dict.fromkeys(specs, 0)
    found = []
    for feature, said in pairs:
        column = counts[feature.tensor]
        counts[feature.tensor] += 1
        is_column = _is_column(specs[feature.tensor])
        if "column" in said:
            found.append(feature)
        else:
            found.append(replace(feature, column=None if is_column else column))
    for name, count in counts.items():
        faults.attempt(_check_width, specs[name], count)
    return found


def _called(names: Sequence[str]) -> str:
    return f"{'feature' if len(names) == 1 else 'features'} {listed(names)}"


def _is_column(spec: TensorSpec) -> bool:
    return len(spec.shape) == 1 or (len(spec.shape) == 2 and spec.shape[1] == 1)


def _check_width(spec: TensorSpec, count: int) -> None:
    if len(spec.shape) not in (1, 2):
        raise BundleError(
            f"The input {shown(spec.name)} has the shape {list(spec.shape)}, which has no columns "
            "to be features. Leave the features out, and give samples as a .npz or .json with an "
            "array for each input."
        )
    width = 1 if len(spec.shape) == 1 else spec.shape[1]
    if width not in (-1, count):
        raise BundleError(
            f"The input {shown(spec.name)} has {width} columns, but the features file describes "
            f"{count} features of it."
        )


def _sized(spec: TensorSpec, columns: int) -> TensorSpec:
    """Return the spec of an input of any number of rows, and of as many columns as features."""
    shape = (-1,) if len(spec.shape) == 1 else (-1, columns)
    return replace(spec, shape=shape)


def _with_kind(feature: Feature, spec: TensorSpec, is_stated: bool) -> Feature:
    datatype = DTYPES[spec.datatype].kind
    means_category = bool(feature.categories) or feature.unknown == "pass"
    if feature.kind == "category" or (means_category and not is_stated):
        feature = replace(feature, kind="category")
    elif not is_stated and datatype in _KINDS:
        feature = replace(feature, kind=_KINDS[datatype])
    return feature


def _check_strings(spec: TensorSpec, features: Sequence[Feature]) -> None:
    """Raise `BundleError` for features that are columns of strings, and aren't said to be."""
    names = [
        repr(feature.name)
        for feature in features
        if feature.tensor == spec.name and feature.kind != "category"
    ]
    if names:
        raise BundleError(
            f"{_called(names)}: the model's input {shown(spec.name)} takes strings. Say "
            'which: categories = ["...", ...], or unknown = "pass" for any.'
        )
