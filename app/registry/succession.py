"""The succession of versions: which one is served if there is no release file.

Beginning with the lowest version, each higher one takes over in turn, unless `obstacles` finds that
it would break callers of the one before; then it is held back until it is promoted. This follows
from the directory alone, so every worker decides alike, before and after a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from msgspec.structs import replace

from ..model import manifest_file
from ..model.bundle import is_bare, numbered_versions
from ..model.compat import breaking_changes
from ..model.errors import BundleError
from ..model.manifest import Manifest
from ..model.naming import as_name
from ..version import COMMAND
from .identity import Identity, file_identity


@dataclass(frozen=True, slots=True)
class Succession:
    """The versions that took over from one another, lowest first: the last of them is served.

    ``held_back`` has the versions above it, each with a sentence that says why it doesn't take over
    and what to do.
    """

    versions: tuple[str, ...]
    held_back: Mapping[str, str] = field(default_factory=dict)

    @property
    def stable(self) -> str:
        """The version that is served."""
        return self.versions[-1]


def obstacles(old: Manifest, new: Manifest, *, keeps_name: bool) -> list[str]:
    """Return why ``new`` may not take over from ``old`` by itself, a sentence each; empty if it
    may.

    With ``keeps_name``, the settings name the model, whatever its manifests say.
    """
    reasons = breaking_changes(old, new)
    before, after = as_name(old.name), as_name(new.name)
    if before != after and not keeps_name:
        reasons.append(
            f"The model's name changes from {before!r} to {after!r}, and so do its URLs and "
            f'metrics at the next start of the service, unless model.name = "{before}" is set.'
        )
    return reasons


def read_succession(directory: Path, *, name: str = "") -> Succession:
    """Return the succession of the versions in ``directory`` whose names are numbers and dots.

    ``name`` is the model's name in the settings, empty if its manifests name it. Raises
    `BundleError` if there is none, or if it can't be known which one is served because the manifest
    of a higher one can't be read.
    """
    taken: list[str] = []
    held_back: dict[str, str] = {}
    unreadable: BundleError | None = None
    stable: Manifest | None = None
    for version in numbered_versions(directory):
        try:
            manifest = _schema(directory / version)
        except BundleError as error:
            unreadable = error
            continue
        reasons = _reasons(stable, manifest, keeps_name=bool(name)) if taken else []
        if reasons:
            fixes = _fixes(version, manifest, taken[-1], stable, name)
            held_back[version] = (
                f"Version {version} does not take over from version {taken[-1]} because it may "
                f"break callers: {' '.join(reasons)} Run {' or '.join(fixes)}."
            )
        else:
            taken.append(version)
            stable, held_back, unreadable = manifest, {}, None
    if unreadable is not None:
        raise unreadable
    return Succession(tuple(taken), held_back)


def _reasons(old: Manifest | None, new: Manifest | None, *, keeps_name: bool) -> list[str]:
    """Return the `obstacles`; None stands for a bare checkpoint, described by the settings."""
    if old is not None and new is not None:
        return obstacles(old, new, keeps_name=keeps_name)
    return [] if old is new else ["Only one of them has a manifest, so they can't be compared."]


def _fixes(
    version: str, new: Manifest | None, stable: str, old: Manifest | None, name: str
) -> list[str]:
    """Return the commands that settle it; `promote` accepts no version without a manifest.

    They name the model if the settings do: without a name, a command acts on the first of several.
    """
    promote = f"`{COMMAND} model promote"
    chosen = f" --model {name}" if name else ""
    serve = f"{promote} {version}{chosen} --allow-schema-change` to serve it anyway"
    keep = f"{promote} {stable}{chosen}` to keep version {stable}"
    return [fix for fix, manifest in ((serve, new), (keep, old)) if manifest is not None]


def _schema(bundle: Path) -> Manifest | None:
    """Return the manifest of a bundle, None for a bare checkpoint. Raises `BundleError`."""
    path = bundle / manifest_file.FILE_NAME
    try:
        if is_bare(bundle):
            return None
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    return _read_schema(path, file_identity(path))


@lru_cache(maxsize=1024)
def _read_schema(path: Path, identity: Identity) -> Manifest:
    """Read a manifest, once for each ``identity`` of its file: workers check every two seconds."""
    return replace(manifest_file.read_manifest(path), golden=None, training={}, preprocessing=())
