"""The permission to run the code of a bundle, and what identifies that code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ..errors import BundleError, shown
from ..manifest import Manifest

AllowCode = bool | tuple[str, ...]
"""``model.allow_code``: whether code of a bundle may run; or the names of the models whose may."""


def may_run(allow_code: AllowCode, name: str) -> bool:
    """Return True if the code of the model ``name`` may run."""
    return allow_code is True or (allow_code is not False and name in allow_code)


def check_allowed(manifest: Manifest, allow_code: AllowCode, name: str) -> None:
    """Raise `BundleError` if ``manifest`` has a handler that may not run.

    ``name`` is what the service calls the model.
    """
    handler = manifest.handler
    if handler is None or may_run(allow_code, name):
        return
    raise BundleError(
        f"Version {manifest.version} of {name} has code of its own, {handler.file}, and "
        "model.allow_code doesn't allow it. If you trust whoever made the bundle, set "
        f'model.allow_code = ["{name}"] (or LANTERN_MODEL__ALLOW_CODE={name}).'
    )


def code_sha256(manifest: Manifest) -> str:
    """Return the SHA-256 of all that the handler of a manifest is: how it is called, its file and
    those beside it. Empty if there is none.

    Every file counts, because any of them can hold code: a pickle, an archive, a library.
    """
    if manifest.handler is None:
        return ""
    lines = "".join(f"{line}\n" for line in _parts(manifest))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def check_recorded(manifest: Manifest, recorded: str | None) -> None:
    """Raise `BundleError` if the code of a version isn't the one that a release records.

    ``recorded`` is empty where the release names the version without code, and None where no
    release names it.
    """
    found = code_sha256(manifest)
    if recorded is None or found == recorded:
        return
    if recorded:
        raise BundleError(
            f"The code of version {manifest.version} is {shown(found or 'none')}, and the release "
            f"records {shown(recorded)}: it was replaced after it was promoted, and doesn't run. "
            "Restore it, or pack it as another version and promote that."
        )
    raise BundleError(
        f"Version {manifest.version} has code, {found}, of which the release has no record, so it "
        "doesn't run. Promote the version, which shows the code and records it."
    )


def _parts(manifest: Manifest) -> Iterator[str]:
    handler = manifest.handler
    assert handler is not None
    yield f"interface {handler.interface}"
    yield f"handler {handler.file}"
    for name in sorted(handler.all_files):
        yield f"{manifest.files[name].sha256} {name}"
