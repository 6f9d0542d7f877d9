"""The release of a model: which of its versions serve, in ``models/NAME/release.toml``.

The file is replaced atomically, so a reader finds the old release or the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from ..documents.files import replace_file
from ..documents.schema import SchemaError, read_as
from ..documents.suggestions import did_you_mean
from ..documents.toml import NotToml, read_toml
from ..model.errors import BundleError
from ..model.manifest import Version
from ..version import COMMAND
from .succession import read_succession

FILE_NAME = "release.toml"
Mode = Literal["canary", "shadow"]
_MODE_FORM = '"canary" or "shadow" if there is a candidate'
_CodeSha256 = Annotated[
    str, Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z", description='"sha256:" and 64 hexadecimal digits')
]
_Traffic = Annotated[float, Meta(ge=0, le=1, description="a number from 0 to 1")]
_MAX_BYTES = 65536


class Release(Struct, frozen=True, forbid_unknown_fields=True):
    """The versions that are served, as written in the file: ``stable``, and optionally a
    ``candidate``.

    In ``mode`` "canary" the candidate answers ``traffic`` (0 to 1) of the requests; as "shadow"
    it predicts what the stable version answers, to be compared with it, and answers nothing.
    ``code`` has the SHA-256 of the code of each version that has any (`code_sha256`): a worker runs
    no other, and none of a version without one.
    """

    stable: Version
    candidate: Version | None = None
    mode: Annotated[Mode, Meta(description=_MODE_FORM)] | None = None
    traffic: _Traffic = 0.0
    code: dict[Version, _CodeSha256] = {}

    @property
    def versions(self) -> tuple[str, ...]:
        """Return the versions to load."""
        return (self.stable,) if self.candidate is None else (self.stable, self.candidate)


@dataclass(frozen=True, slots=True)
class InForce:
    """The release in force, written or not, and the versions that are ``held_back``.

    These are above the stable version and don't take over by themselves; each has the reason and
    what to do. If a release is written, there are none.
    """

    release: Release
    held_back: Mapping[str, str] = field(default_factory=dict)
    is_written: bool = False

    def code_of(self, version: str) -> str | None:
        """Return the SHA-256 of the only code of ``version`` that may run, empty where none may;
        None where no release is written, which could say it.
        """
        return self.release.code.get(version, "") if self.is_written else None


def read_in_force(directory: Path, *, name: str = "") -> InForce:
    """Return what is in force for the model in ``directory``: the release in its file, or without
    one, the version that took over last (see `app.registry.succession`), alone.

    ``name`` is the model's name in the settings. Raises `BundleError` if the file is invalid, or if
    it can't be known which version is served.
    """
    release = read_release(directory)
    if release is not None:
        return InForce(release, is_written=True)
    succession = read_succession(directory, name=name)
    return InForce(Release(succession.stable), succession.held_back)


def release_in_force(directory: Path, *, name: str = "") -> Release:
    """Return the release alone; see `read_in_force`."""
    return read_in_force(directory, name=name).release


def read_release(directory: Path) -> Release | None:
    """Read ``release.toml`` in ``directory``; return None if there is none.

    Raises `BundleError`, which names the key that is wrong.
    """
    path = directory / FILE_NAME
    try:
        if path.exists() and not path.is_file():  # a pipe would block
            raise BundleError(f"{path} is not a regular file.")
        document = read_toml(path, _MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    except NotToml as error:
        raise BundleError(f"{path} {error}") from error
    try:
        return parse_release(document)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None


def write_release(directory: Path, release: Release) -> None:
    """Replace ``release.toml`` in ``directory`` in one step that outlives a crash.

    Raises `BundleError` if the disk is full or the directory can't be written to; the old file is
    then untouched.
    """
    path = directory / FILE_NAME
    parse_release(release_document(release))  # never write what can't be read
    try:
        replace_file(path, _text(release).encode(), mode=0o644)
    except OSError as error:
        raise BundleError(
            f"{path} can't be written: {error.strerror}. The release is unchanged."
        ) from error


def release_document(release: Release) -> dict[str, Any]:
    """Return ``release`` as the keys and values of its file."""
    document: dict[str, Any] = {"stable": release.stable}
    if release.candidate is not None:
        document |= {"candidate": release.candidate, "mode": release.mode}
        if release.mode == "canary":
            document["traffic"] = release.traffic
    if release.code:
        document["code"] = dict(release.code)
    return document


def _text(release: Release) -> str:
    """Return the file's text, with the required key last: a truncated file is not a release."""
    document = release_document(release)
    lines = (f"{key} = {_toml(value)}" for key, value in reversed(document.items()))
    return "\n".join([f"# Which versions are served. Written by `{COMMAND} model`.", *lines, ""])


def _toml(value: Any) -> str:
    """Return a value of a release as TOML; its strings have no character that needs an escape."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_toml(key)} = {_toml(each)}' for key, each in value.items())}}}"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def parse_release(document: dict[str, Any]) -> Release:
    """Read a release from the keys and values of its file.

    Raises `BundleError`, which names the key that is wrong.
    """
    try:
        release = read_as(Release, document)
    except SchemaError as error:
        raise BundleError(_fault(error)) from None
    others = [version for version in release.code if version not in release.versions]
    if others:
        raise BundleError(f"code names version {others[0]}, which is not one of the release.")
    if release.candidate is None:
        beside = [key for key in ("mode", "traffic") if key in document]
        if beside:
            raise BundleError(f"{beside[0]} is set, but there is no candidate.")
    elif release.candidate == release.stable:
        raise BundleError("candidate and stable are the same version.")
    elif release.mode is None:
        raise BundleError(f"mode must be {_MODE_FORM}.")
    elif release.mode == "shadow" and "traffic" in document:
        raise BundleError("traffic is only for a canary; a shadow receives every request.")
    elif release.mode == "canary" and "traffic" not in document:
        raise BundleError(
            "traffic is missing: the fraction of the requests that the canary answers."
        )
    return release


def _fault(error: SchemaError) -> str:
    if error.known:
        hint = did_you_mean(str(error.path[-1]), error.known) or "."
        return f"{error.path[-1]!r} is not a key of a release{hint}"
    return "stable is missing: the version to serve." if error.missing else str(error)
