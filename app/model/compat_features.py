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
_MISREAD = (
    "callers who send it whole (Open Inference Protocol) would be answered wrongly, those who send "
    "features by name are not affected."
)


def breaking_features(old: Manifest, new: Manifest) -> Iterator[str]:
    """Yield what callers must change who send features by name, or would be answered wrongly
    without noticing; a sentence each.
    """
    yield from _names(old, new)
    for before, after in _common(old, new):
        yield from _narrower(before, after)
    yield from _misread(old, new)


def harmless_features(old: Manifest, new: Manifest) -> Iterator[str]:
    """Yield the changes that those callers don't notice, or that end in an error for callers who
    send whole tensors.
    """
    yield from _refused(old, new)
    places = [{f.name: (f.tensor, f.column or 0) for f in each.features} for each in (old, new)]
    names = [[f.name for f in manifest.features] for manifest in (old, new)]
    if places[0] == places[1] and names[0] != names[1]:
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


def _refused(old: Manifest, new: Manifest) -> Iterator[str]:
    """Yield which whole tensors are no longer accepted, where the features are the same."""
    if _by_name(old).keys() != _by_name(new).keys():
        return
    after = {spec.name: spec for spec in new.inputs}
    for spec in old.inputs:
        now = after.get(spec.name)
        if now is None:
            yield f"The input {spec.name!r} is gone, whose features are in other inputs: {_WHOLE}"
        elif spec.form != now.form:
            yield f"The input {spec.name!r} is {now.form}, and was {spec.form}: {_WHOLE}"


def _misread(old: Manifest, new: Manifest) -> Iterator[str]:
    """Yield which whole tensors are still accepted and now mean something else, where the features
    are the same.
    """
    if _by_name(old).keys() != _by_name(new).keys():
        return
    after = {spec.name: spec for spec in new.inputs}
    for spec in old.inputs:
        if spec.name not in after or spec.form != after[spec.name].form:
            continue
        ours, theirs = (_columns(each, spec.name) for each in (old, new))
        moved = [
            f"column {index} was {before.name!r} and is {now.name!r}"
            for index, (before, now) in enumerate(zip(ours, theirs, strict=False))
            if before.name != now.name
        ]
        recoded = [
            change
            for before, now in zip(ours, theirs, strict=False)
            if before.name == now.name
            for change in _recoded(before, now, is_text=spec.datatype == "BYTES")
        ]
        if moved:
            yield f"The columns of the input {spec.name!r} moved ({listed(moved)}): {_MISREAD}"
        if recoded:
            yield f"The codes in the input {spec.name!r} changed ({listed(recoded)}): {_MISREAD}"


def _recoded(before: Feature, after: Feature, *, is_text: bool) -> Iterator[str]:
    """Yield which values of a feature stand for another in a tensor."""
    if not is_text:
        for code, (was, now) in enumerate(zip(before.categories, after.categories, strict=False)):
            if was != now:
                yield f"{code} of {before.name!r} was {was!r} and is {now!r}"
    nulls = before.null_as, after.null_as
    if None not in nulls and nulls[0] != nulls[1]:
        yield f"null of {before.name!r} was {nulls[0]!r} and is {nulls[1]!r}"


def _columns(manifest: Manifest, tensor: str) -> list[Feature]:
    """Return the features in a tensor, in the order of its columns."""
    placed = [feature for feature in manifest.features if feature.tensor == tensor]
    return sorted(placed, key=lambda feature: feature.column or 0)


def _by_name(manifest: Manifest) -> dict[str, Feature]:
    return {feature.name: feature for feature in manifest.features}


def _common(old: Manifest, new: Manifest) -> Iterator[tuple[Feature, Feature]]:
    after = _by_name(new)
    return ((f, after[f.name]) for f in old.features if f.name in after)


def _range(feature: Feature) -> str:
    low, high = feature.minimum, feature.maximum
    return f"{'…' if low is None else f'{low:g}'} to {'…' if high is None else f'{high:g}'}"
