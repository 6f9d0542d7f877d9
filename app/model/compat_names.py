"""Compatibility of classes, labels and targets: the columns of an answer, read by position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .manifest import Manifest

Names = tuple[str, ...]
_SHOWN = 10


def breaking_names(old: Manifest, new: Manifest) -> Iterator[str]:
    """Yield what callers who read the answer's columns must change, a sentence each."""
    yield from _moved("classes", "class_{}", old.classes, new.classes)
    yield from _moved("labels", "class_{}", old.labels, new.labels)
    before, after = (tuple(target.name for target in each.targets) for each in (old, new))
    renamed = [pair for pair in zip(before, after, strict=False) if pair[0] != pair[1]]
    if len(before) == len(after) and len(renamed) == 1:
        yield "The target {!r} is now called {!r}.".format(*renamed[0])
    else:
        yield from _moved("targets", "prediction[{}]", before, after)
    units = {target.name: target.unit for target in new.targets}
    for target in old.targets:
        unit = units.get(target.name, "")
        if target.unit and unit and target.unit != unit:
            yield f"The unit of {target.name!r} changes from {target.unit!r} to {unit!r}."


def harmless_names(old: Manifest, new: Manifest) -> Iterator[str]:
    """Yield the changes that those callers don't notice."""
    found = {target.name: target for target in new.targets}
    for before in old.targets:
        after = found.get(before.name)
        if after is None:
            continue
        if before.description != after.description:
            yield f"The target {before.name!r} has another description."
        if before.unit != after.unit and not (before.unit and after.unit):
            yield f"The target {before.name!r} {'now' if after.unit else 'no longer'} has a unit."


def _moved(called: str, place: str, old: Names, new: Names) -> Iterator[str]:
    if old == new:
        return
    if sorted(old) == sorted(new):
        moved = [
            f"{place.format(index)} was {before!r} and is {after!r}"
            for index, (before, after) in enumerate(zip(old, new, strict=True))
            if before != after
        ]
        yield f"The {called} are in another order: {_first(moved)}."
    else:
        yield f"The {called} change from {_quoted(old)} to {_quoted(new)}."


def _quoted(names: Names) -> str:
    return _first([*map(repr, names)])


def _first(parts: Sequence[str]) -> str:
    return ", ".join(parts if len(parts) <= _SHOWN else [*parts[:_SHOWN], "..."])
