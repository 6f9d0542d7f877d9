"""Compatibility: what a new version of a model changes for callers of the old one.

Callers send features by name, images and texts, or whole tensors; they read classes by position
(``class_N``), or outputs by name. Nothing else in a manifest is a promise to them. What ends in an
error for callers who send tensors to a model of features, images or texts is told and not held
against a version: most send features, images or texts. What would be answered, and wrongly, is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .compat_features import breaking_features, harmless_features
from .compat_names import breaking_names, harmless_names
from .compat_steps import (
    breaking_steps,
    breaking_top,
    harmless_steps,
    harmless_top,
    lost_samples,
    taken,
)
from .manifest import Manifest
from .signature import TensorSpec
from .tasks import task_of


def breaking_changes(old: Manifest, new: Manifest) -> list[str]:
    """Return the changes in ``new`` that would break a caller of ``old``, a sentence each."""
    if old.task != new.task:
        return [f"The task is {new.task!r}, and was {old.task!r}."]
    if (old.handler is None) != (new.handler is None):
        return [
            "It has no handler, and callers send whole requests to one."
            if new.handler is None
            else "It has a handler, which takes whole requests, and callers send none."
        ]
    if lost := lost_samples(old, new):
        return [lost]
    named = list(breaking_names(old, new))
    return [
        *_breaking_inputs(old, new),
        *named,
        *_outputs(old, new, names_differ=bool(named)),
        *breaking_top(old, new),
    ]


def harmless_changes(old: Manifest, new: Manifest) -> list[str]:
    """Return the schema changes that break no caller, a sentence each."""
    return list(_harmless(old, new))


def shadow_obstacle(manifest: Manifest) -> str:
    """Return why answers of a model can't be compared with a shadow's; empty if they can."""
    if manifest.handler is not None:
        return (
            "A shadow compares predictions, and the answers of a handler are its own; use a canary."
        )
    if manifest.takes_samples:
        return ""
    return (
        "A shadow compares the answers to samples, and this model takes "
        f"{taken(manifest)}; use a canary."
    )


def _breaking_inputs(old: Manifest, new: Manifest) -> Iterator[str]:
    if old.features:
        return breaking_features(old, new)
    return breaking_steps(old, new) if old.steps else _inputs(old, new)


def _inputs(old: Manifest, new: Manifest) -> Iterator[str]:
    before, after = ({spec.name: spec for spec in each.inputs} for each in (old, new))
    yield from (f"The input {name!r} is removed." for name in before if name not in after)
    for name in after:
        if name not in before:
            yield f"The input {name!r} is new, and no caller sends it yet."
        elif _is_narrower(before[name], after[name]):
            yield _changed("input", before[name], after[name])


def _outputs(old: Manifest, new: Manifest, *, names_differ: bool) -> Iterator[str]:
    """Yield what breaks callers who read the outputs by their names.

    With ``names_differ``, it is said already that the answer has other columns.
    """
    before, after = task_of(old), task_of(new)
    roles_differ = before.answer_role != after.answer_role
    if roles_differ:
        yield f"It answers {after.answer_role}, and answered {before.answer_role}."
    found = {spec.name: spec for spec in after.signature.outputs}
    for spec in before.signature.outputs:
        if (names_differ or roles_differ) and spec.role not in ("tensor", "state", "logits"):
            continue  # it is of the answer, not beside it
        if spec.name not in found:
            yield f"The output {spec.name!r} is removed."
        elif _is_narrower(found[spec.name], spec):  # callers rely on what doesn't vary
            yield _changed("output", spec, found[spec.name])
        elif (role := found[spec.name].role) != spec.role:
            yield f"The output {spec.name!r} has the role {role!r}, and had {spec.role!r}."


def _is_narrower(wide: TensorSpec, narrow: TensorSpec) -> bool:
    """Return True unless all that ``wide`` may be ``narrow`` may be, too."""
    return wide.datatype != narrow.datatype or not narrow.accepts(wide.shape)


def _changed(role: str, old: TensorSpec, new: TensorSpec) -> str:
    return f"The {role} {old.name!r} is {new.form}, and was {old.form}."


def _harmless(old: Manifest, new: Manifest) -> Iterator[str]:
    if old.features and new.features:
        yield from harmless_features(old, new)
    elif old.steps and new.steps:
        yield from harmless_steps(old, new)
    else:
        yield from _wider("input", old.inputs, new.inputs)
    yield from harmless_names(old, new)
    yield from harmless_top(old, new)
    if old.task == new.task:
        outputs = [task_of(each).signature.outputs for each in (old, new)]
        yield from _wider("output", *outputs)


def _wider(role: str, old: Sequence[TensorSpec], new: Sequence[TensorSpec]) -> Iterator[str]:
    """Yield how tensors changed in ways that callers of the old ones don't notice."""
    before = {spec.name: spec for spec in old}
    for spec in new:
        known = before.get(spec.name)
        if known is None:
            if role == "output":
                yield f"The output {spec.name!r} is new."
        elif known.shape != spec.shape:
            wide, narrow = (known, spec) if role == "input" else (spec, known)
            if not _is_narrower(wide, narrow):
                yield _changed(role, known, spec)
