"""Compatibility of features: what callers of the old version may send to the new one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from ..documents.suggestions import closest
from .errors import listed
from .features import Feature, Kind
from .manifest import Manifest

_IN_WORDS: Mapping[Kind, str] = {
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "category": "a category",
}
_WHOLE = "callers who send it whole must follow, those who send features by name need not."


def breaking_features(old: Manifest, new: Manifest) -> Iterator[str]:
    """Yield what callers who send features by name must change, a sentence each."""
    yield from _names(old, new)
    for before, after in _common(old, new):
        yield from _narrower(before, after)


def harmless_features(old: Manifest, new: Manifest) -> Iterator[str]:
    """Yield the changes that those callers don't notice."""
    places = list(_places(old, new))
    yield from places
    names = [[f.name for f in manifest.features] for manifest in (old, new)]
    if not places and names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
        yield "The features are in another order."
    for before, after in _common(old, new):
        yield from _wider(before, after)
        name = before.name
        if (before.minimum, before.maximum) != (after.minimum, after.maximum):
            yield f"The range of {name!r} is now {_range(after)}; it was {_range(before)}."
        if before.description != after.description:
            yield f"The feature {name!r} has another description."
        if before.unit != after.unit and not (before.unit and after.unit):
            yield f"The feature {name!r} {'now' if after.unit else 'no longer'} has a unit."


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
        placed = replace(candidate, name=feature.name, tensor=feature.tensor, column=feature.column)
        if feature.description and placed == feature:
            return candidate
    close = closest(feature.name, [other.name for other in candidates])
    return next((other for other in candidates if other.name == close), None)


def _narrower(before: Feature, after: Feature) -> Iterator[str]:
    """Yield what a feature no longer accepts, or means."""
    name = before.name
    if before.nullable and not after.nullable:
        yield f"The feature {name!r} no longer accepts null."
    if before.unit and after.unit and before.unit != after.unit:
        yield f"The unit of {name!r} changes from {before.unit!r} to {after.unit!r}."
    if before.kind != after.kind:
        if not _is_widened(before.kind, after.kind):
            yield _kind_changed(before, after)
    elif before.unknown == "pass" and after.unknown != "pass":
        yield f"The feature {name!r} no longer accepts unknown values."
    elif after.unknown != "pass" and (lost := _missing(before, after)):
        yield f"The feature {name!r} no longer accepts {_quoted(lost)}."


def _wider(before: Feature, after: Feature) -> Iterator[str]:
    """Yield what a feature accepts in addition."""
    name = before.name
    if after.nullable and not before.nullable:
        yield f"The feature {name!r} now accepts null."
    if _is_widened(before.kind, after.kind):
        yield _kind_changed(before, after)
    if before.kind != "category" or after.kind != "category":
        return
    if after.unknown == "pass" and before.unknown != "pass":
        yield f"The feature {name!r} now accepts unknown values."
    if gained := _missing(after, before):
        known = "now knows" if before.unknown == "pass" else "now accepts"
        yield f"The feature {name!r} {known} {_quoted(gained)}."


def _is_widened(before: Kind, after: Kind) -> bool:
    return (before, after) == ("integer", "number")


def _kind_changed(before: Feature, after: Feature) -> str:
    return (
        f"The feature {before.name!r} is now {_IN_WORDS[after.kind]}, and was "
        f"{_IN_WORDS[before.kind]}."
    )


def _missing(before: Feature, after: Feature) -> list[str]:
    """Return the categories of ``before`` that ``after`` doesn't have."""
    found = set(after.categories)
    return [category for category in before.categories if category not in found]


def _quoted(categories: Sequence[str]) -> str:
    return listed(map(repr, categories))


def _places(old: Manifest, new: Manifest) -> Iterator[str]:
    """Yield what matters to callers who send whole tensors, where the features are the same."""
    if _by_name(old).keys() != _by_name(new).keys():
        return
    before, after = ({spec.name: spec for spec in each.inputs} for each in (old, new))
    for name, spec in before.items():
        if name not in after:
            yield f"The input {name!r} is gone, whose features are in other inputs: {_WHOLE}"
        elif spec.form != after[name].form:
            yield f"The input {name!r} is {after[name].form}, and was {spec.form}: {_WHOLE}"
        elif _columns(old, name) != _columns(new, name):
            yield f"The columns of the input {name!r} are in another order: {_WHOLE}"
        elif _codes(old, name) != _codes(new, name):
            yield f"The codes in the input {name!r} stand for other categories: {_WHOLE}"


def _columns(manifest: Manifest, tensor: str) -> list[str]:
    placed = [feature for feature in manifest.features if feature.tensor == tensor]
    return [f.name for f in sorted(placed, key=lambda feature: feature.column or 0)]


def _codes(manifest: Manifest, tensor: str) -> dict[str, tuple[str, ...]]:
    """Return the categories that the codes in a tensor of numbers stand for, by feature."""
    is_text = any(spec.name == tensor and spec.datatype == "BYTES" for spec in manifest.inputs)
    return {
        feature.name: feature.categories
        for feature in manifest.features
        if feature.tensor == tensor and feature.kind == "category" and not is_text
    }


def _by_name(manifest: Manifest) -> dict[str, Feature]:
    return {feature.name: feature for feature in manifest.features}


def _common(old: Manifest, new: Manifest) -> Iterator[tuple[Feature, Feature]]:
    after = _by_name(new)
    return ((f, after[f.name]) for f in old.features if f.name in after)


def _range(feature: Feature) -> str:
    low, high = feature.minimum, feature.maximum
    return f"{'…' if low is None else f'{low:g}'} to {'…' if high is None else f'{high:g}'}"
