"""Compatibility: what a new version of a model changes for callers of the old one.

Callers send features by name and read classes by position (``class_N``), or they send and read
tensors by name; nothing else in a manifest is a promise to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from ..documents.suggestions import closest
from .features import Feature
from .manifest import Manifest
from .signature import TensorSpec


def breaking_changes(old: Manifest, new: Manifest) -> list[str]:
    """Return the changes in ``new`` that would break a caller of ``old``, a sentence each."""
    if old.task != new.task:
        return [f"The task is {new.task!r}, and was {old.task!r}."]
    if old.task == "tensors":
        return [*_inputs(old, new), *_outputs(old, new)]
    return [*_names(old, new), *_meanings(old, new), *_classes(old.classes, new.classes)]


def shadow_obstacle(manifest: Manifest) -> str:
    """Return why answers of a model can't be compared with a shadow's; empty if they can."""
    if manifest.task == "classification":
        return ""
    return (
        f"A shadow compares classes, and the task is {manifest.task!r}; use a canary, or compare "
        "the outputs where their meaning is known."
    )


def harmless_changes(old: Manifest, new: Manifest) -> list[str]:
    """Return the schema changes that break no caller, a sentence each."""
    return list(_harmless(old, new))


def _names(old: Manifest, new: Manifest) -> Iterator[str]:
    before, after = _by_name(old), _by_name(new)
    removed = [feature for name, feature in before.items() if name not in after]
    added = [feature for name, feature in after.items() if name not in before]
    for feature in removed:
        renamed = _renamed(feature, added)
        if renamed is None:
            yield f"The feature {feature.name!r} is removed."
        else:
            added.remove(renamed)
            yield f"The feature {feature.name!r} is now called {renamed.name!r}."
    for feature in added:
        yield f"The feature {feature.name!r} is new, so callers don't send it yet."


def _renamed(feature: Feature, candidates: Sequence[Feature]) -> Feature | None:
    """Return the one of ``candidates`` that seems to be ``feature`` renamed."""
    for candidate in candidates:
        if feature.description and replace(candidate, name=feature.name) == feature:
            return candidate
    close = closest(feature.name, [other.name for other in candidates])
    return next((other for other in candidates if other.name == close), None)


def _meanings(old: Manifest, new: Manifest) -> Iterator[str]:
    for before, after in _common(old, new):
        if before.nullable and not after.nullable:
            yield f"The feature {before.name!r} no longer accepts null."
        if before.unit and after.unit and before.unit != after.unit:
            yield f"The unit of {before.name!r} changes from {before.unit!r} to {after.unit!r}."


def _classes(old: tuple[str, ...], new: tuple[str, ...]) -> Iterator[str]:
    if old == new:
        return
    if sorted(old) == sorted(new):
        moved = [
            f"class_{index} was {before!r} and is {after!r}"
            for index, (before, after) in enumerate(zip(old, new, strict=True))
            if before != after
        ]
        yield f"The classes are in another order: {', '.join(moved)}."
        return
    yield f"The classes change from {', '.join(map(repr, old))} to {', '.join(map(repr, new))}."


def _inputs(old: Manifest, new: Manifest) -> Iterator[str]:
    before, after = ({spec.name: spec for spec in each.inputs} for each in (old, new))
    yield from (f"The input {name!r} is removed." for name in before if name not in after)
    for name in after:
        if name not in before:
            yield f"The input {name!r} is new, and no caller sends it yet."
        elif _is_narrower(before[name], after[name]):
            yield _changed("input", before[name], after[name])


def _outputs(old: Manifest, new: Manifest) -> Iterator[str]:
    after = {spec.name: spec for spec in new.outputs}
    for spec in old.outputs:
        if spec.name not in after:
            yield f"The output {spec.name!r} is removed."
        elif _is_narrower(after[spec.name], spec):  # callers rely on what doesn't vary
            yield _changed("output", spec, after[spec.name])
        elif spec.role != after[spec.name].role:
            role = after[spec.name].role
            yield f"The output {spec.name!r} has the role {role!r}, and had {spec.role!r}."


def _is_narrower(wide: TensorSpec, narrow: TensorSpec) -> bool:
    """Return True unless all that ``wide`` may be ``narrow`` may be, too."""
    return wide.datatype != narrow.datatype or not narrow.accepts(wide.shape)


def _changed(role: str, old: TensorSpec, new: TensorSpec) -> str:
    forms = [f"{spec.datatype} of shape {list(spec.shape)}" for spec in (new, old)]
    return f"The {role} {old.name!r} is {forms[0]}, and was {forms[1]}."


def _harmless(old: Manifest, new: Manifest) -> Iterator[str]:
    yield from _harmless_of_tensors("input", old.inputs, new.inputs)
    yield from _harmless_of_tensors("output", old.outputs, new.outputs)
    names = [[f.name for f in manifest.features] for manifest in (old, new)]
    if names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
        yield "The features are in another order."
    for before, after in _common(old, new):
        name = before.name
        if after.nullable and not before.nullable:
            yield f"The feature {name!r} now accepts null."
        if (before.minimum, before.maximum) != (after.minimum, after.maximum):
            yield f"The range of {name!r} is now {_range(after)}; it was {_range(before)}."
        if before.description != after.description:
            yield f"The feature {name!r} has another description."
        if before.unit != after.unit and not (before.unit and after.unit):
            yield f"The feature {name!r} {'now' if after.unit else 'no longer'} has a unit."


def _harmless_of_tensors(
    role: str, old: Sequence[TensorSpec], new: Sequence[TensorSpec]
) -> Iterator[str]:
    before = {spec.name: spec for spec in old}
    for spec in new:
        known = before.get(spec.name)
        if known is None:
            if role == "output":
                yield f"The output {spec.name!r} is new."
        elif known.datatype == spec.datatype and known.shape != spec.shape:
            is_harmless = (
                spec.accepts(known.shape) if role == "input" else known.accepts(spec.shape)
            )
            if is_harmless:
                yield _changed(role, known, spec)


def _by_name(manifest: Manifest) -> dict[str, Feature]:
    return {feature.name: feature for feature in manifest.features}


def _common(old: Manifest, new: Manifest) -> Iterator[tuple[Feature, Feature]]:
    after = _by_name(new)
    return ((f, after[f.name]) for f in old.features if f.name in after)


def _range(feature: Feature) -> str:
    low, high = feature.minimum, feature.maximum
    return f"{'…' if low is None else f'{low:g}'} to {'…' if high is None else f'{high:g}'}"
