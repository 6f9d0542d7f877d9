"""Compatibility of steps: whether callers who send images and texts may send them to a new version.

What becomes of an image or a text is the model's own affair: another size, mean or tokenizer is
told, and not held against a version.
"""

from __future__ import annotations

from collections.abc import Iterator

from .errors import listed
from .manifest import Manifest
from .signature import TensorSpec
from .steps.declaration import files_of, kind_of, member_of, members_of

_WHOLE = "callers who send it whole must follow, those who send images or texts need not."


def lost_samples(old: Manifest, new: Manifest) -> str:
    """Return why no caller of ``old`` can send the same to ``new``; empty if they can."""
    if bool(old.features) > bool(new.features) or bool(old.steps) > bool(new.steps):
        return f"It takes {taken(new)}, and callers send {taken(old)}."
    return ""


def taken(manifest: Manifest) -> str:
    """Return what callers send for one answer, in words."""
    if manifest.features:
        return "features"
    if manifest.steps:
        return " with ".join(f"{member}s" for member in members_of(manifest.steps))
    return "tensors only"


def breaking_steps(old: Manifest, new: Manifest) -> Iterator[str]:
    """Yield what callers who send images and texts must change, a sentence each."""
    before, after = members_of(old.steps), members_of(new.steps)
    for member in before:
        if member not in after:
            yield f"It takes no {member}, and callers send one."
    for member in after:
        if member not in before:
            yield f"Each {before[0]} needs one {member} more, and no caller sends it yet."


def breaking_top(old: Manifest, new: Manifest) -> Iterator[str]:
    """Yield what callers who read the most probable classes must change."""
    if old.top and not new.top:
        yield "The answer no longer has the most probable classes, unless a request asks for them."


def harmless_steps(old: Manifest, new: Manifest) -> Iterator[str]:
    """Yield the changes that callers who send images and texts don't notice."""
    steps = {member_of(step): step for step in old.steps}
    for step in new.steps:
        before = steps.get(member_of(step))
        if before is None:
            continue
        if kind_of(before) != kind_of(step):
            yield f"The {kind_of(before)} step has become a {kind_of(step)} step."
            continue
        changed = [
            field
            for field in step.__struct_fields__
            if getattr(before, field) != getattr(step, field)
        ]
        if not changed:
            names = files_of((step,))
            files = [name for name in names if old.files.get(name) != new.files.get(name)]
            changed = [field for field in step.__struct_fields__ if getattr(step, field) in files]
        if changed:
            yield f"The {kind_of(step)} step has another {listed(changed)}."
    specs = {spec.name: spec for spec in old.inputs}
    for spec in new.inputs:
        known = specs.get(spec.name)
        if known is None or known != spec:
            yield f"The input {spec.name!r} is {_was(spec, known)}: {_WHOLE}"


def harmless_top(old: Manifest, new: Manifest) -> Iterator[str]:
    """Yield how the most probable classes changed."""
    if new.top and new.top != old.top:
        yield f"The answer has the {new.top} most probable classes; it had {old.top or 'none'}."


def _was(spec: TensorSpec, known: TensorSpec | None) -> str:
    return "new" if known is None else f"{spec.form}, and was {known.form}"
