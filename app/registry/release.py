"""The release of a model: which of its versions serve, in ``models/NAME/release.toml``.

The file is replaced atomically, so whoever reads it finds the old release or the new one.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..model.bundle import highest_version
from ..model.errors import BundleError
from ..model.files import replace_file
from ..model.manifest import VERSION, VERSION_FORM
from ..model.text import NotUtf8, decode
from ..version import COMMAND

FILE_NAME = "release.toml"
Mode = Literal["canary", "shadow"]
_LARGEST_FILE = 65536


@dataclass(frozen=True, slots=True)
class Release:
    """What serves: ``stable``, and beside it, maybe, ``candidate``.

    In ``mode`` "canary" the candidate answers the ``share`` (0 to 1) of the requests; as "shadow"
    it predicts what the stable version answers, to be compared with it, and answers nothing.
    """

    stable: str
    candidate: str | None = None
    mode: Mode | None = None
    share: float = 0.0

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions to load."""
        return (self.stable,) if self.candidate is None else (self.stable, self.candidate)


def release_in_force(directory: Path) -> Release:
    """Return the release of the model in ``directory``: its file's, or the highest version alone.

    Raises `BundleError` when the file can't be used, or there is no version.
    """
    release = read_release(directory)
    return Release(highest_version(directory)) if release is None else release


def read_release(directory: Path) -> Release | None:
    """Read ``release.toml`` in ``directory``; None where there is none.

    Raises `BundleError`, which names the key that is wrong.
    """
    path = directory / FILE_NAME
    try:
        if path.exists() and not path.is_file():  # a pipe would be read for ever
            raise BundleError(f"{path} is not a regular file.")
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    if len(content) > _LARGEST_FILE:
        raise BundleError(f"{path} is larger than a release can be.")
    try:
        return parse_release(tomllib.loads(decode(content)))
    except NotUtf8 as error:
        raise BundleError(f"{path} {error}") from None
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None
    # Beside its own error tomllib lets through an integer of too many digits, and too deep nesting.
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not TOML: {error}.") from error


def write_release(directory: Path, release: Release) -> None:
    """Replace ``release.toml`` in ``directory`` in one step that outlives a crash.

    Raises `BundleError` when the disk is full or the directory can't be written to; the old file is
    then untouched.
    """
    path = directory / FILE_NAME
    parse_release(release_document(release))  # nothing is written that can't be read
    try:
        replace_file(path, _text(release).encode(), mode=0o644)
    except OSError as error:
        raise BundleError(
            f"{path} can't be written: {error.strerror}. The release is what it was."
        ) from error


def release_document(release: Release) -> dict[str, Any]:
    """Return ``release`` as the keys and values that stand in its file."""
    document: dict[str, Any] = {"stable": release.stable}
    if release.candidate is not None:
        document |= {"candidate": release.candidate, "mode": release.mode}
        if release.mode == "canary":
            document["share"] = release.share
    return document


def _text(release: Release) -> str:
    """Return the file's text, what is required last: cut short anywhere, it is no release."""
    lines = (
        f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value!r}"
        for key, value in reversed(release_document(release).items())
    )
    return "\n".join([f"# Which versions serve. Written by `{COMMAND} model`.", *lines, ""])


def parse_release(document: dict[str, Any]) -> Release:
    """Read a release from the keys and values of its file.

    Raises `BundleError`, which names the key that is wrong.
    """
    unknown = sorted(document.keys() - {"stable", "candidate", "mode", "share"})
    if unknown:
        raise BundleError(f"{unknown[0]!r} is not a key of a release.")
    if "stable" not in document:
        raise BundleError("stable is missing: the version that serves.")
    stable = _version(document, "stable")
    if "candidate" not in document:
        beside = [key for key in ("mode", "share") if key in document]
        if beside:
            raise BundleError(f"{beside[0]} stands without a candidate.")
        return Release(stable)
    candidate = _version(document, "candidate")
    if candidate == stable:
        raise BundleError("candidate and stable are the same version.")
    mode = document.get("mode")
    if mode not in get_args(Mode):
        raise BundleError('mode must be "canary" or "shadow" where there is a candidate.')
    share = document.get("share", 0.0)
    if mode == "shadow":
        if "share" in document:
            raise BundleError("share is for a canary; a shadow sees every request.")
    elif type(share) not in (int, float) or not 0 <= share <= 1:
        raise BundleError("share must be a number from 0 to 1.")
    elif "share" not in document:
        raise BundleError("share is missing: of the requests, how many the canary answers.")
    return Release(stable, candidate, mode, float(share))


def _version(document: dict[str, Any], key: str) -> str:
    version = document[key]
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        raise BundleError(f"{key} must be a version in quotes: {VERSION_FORM}.")
    return version
