"""Bundles on disk: find the one to serve, and verify its files against its manifest."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import manifest_file
from .errors import BundleError, shown
from .features import Feature
from .file_kind import foreign_kind
from .golden import Golden, read_golden
from .manifest import VERSION, FileRecord, Manifest, check_names
from .manifest_file import read_manifest

CHECKPOINT = "model.pt"
ONNX = "model.onnx"
_OF_THE_FILE_SYSTEM = "lost+found"
_NUMBERED = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})*")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: its manifest and the paths of its networks.

    ``checkpoint``, ``onnx`` and ``golden`` are None if the bundle has no such file. ``directory``
    is None for a bare checkpoint.
    """

    manifest: Manifest
    checkpoint: Path | None
    onnx: Path | None
    golden: Path | None = None
    directory: Path | None = None

    def read_file(self, name: str) -> bytes:
        """Return the bytes of a file that the manifest lists, as `read_verified` does."""
        if self.directory is None or name not in self.manifest.files:
            raise BundleError(f"The bundle has no file {shown(name)}.")
        return read_verified(self.directory / name, self.manifest.files[name])

    def read_golden(self) -> Golden | None:
        """Return the golden data, which a bare checkpoint doesn't have. Raises `BundleError`."""
        if self.golden is None:
            return self.manifest.golden
        manifest = self.manifest
        return read_golden(
            self.golden, manifest.signature, in_rows=manifest.batch, steps=manifest.steps
        )


def find_bundle(path: Path, version: str = "") -> Path:
    """Return the bundle's directory (or the checkpoint file) for ``path``.

    ``path`` is a checkpoint file, a bundle, or a directory of versions. ``version`` selects one of
    these by the name of its directory; if it is empty, the highest whose name is numbers and dots
    is used (never a copy named ``2-old``). Raises `BundleError` if there is none.
    """
    try:
        if path.is_file() or _holds_model(path):
            return path
    except (OSError, ValueError) as error:  # ValueError: a null byte
        raise _unreadable(path, error) from error
    if not version:
        return path / numbered_versions(path)[-1]
    if not (VERSION.fullmatch(version) and _holds_model(path / version)):
        raise BundleError(
            f"{path} has no version {version!r}; it has: {', '.join(versions(path))}."
        )
    return path / version


def holds_versions(path: Path) -> bool:
    """Return True if ``path`` is (or may become) a directory of versions, not a bundle or a file.

    Raises `BundleError` if it can't be read, or is neither a file nor a directory.
    """
    try:
        if path.is_file() or _holds_model(path):
            return False
        if path.exists() and not path.is_dir():  # a pipe would block
            raise BundleError(f"{path} is neither a regular file nor a directory.")
        return True
    except (OSError, ValueError) as error:  # ValueError: a null byte
        raise _unreadable(path, error) from error


def versions(path: Path) -> list[str]:
    """Return the versions in a directory of them: numbers first, in numeric order.

    Raises `BundleError` when there is none.
    """
    try:
        entries = [entry.name for entry in path.iterdir() if _may_hold_model(entry)]
    except FileNotFoundError:
        raise BundleError(f"There is no model at {path}.") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not entries:
        if found := models_below(path):
            raise BundleError(
                f"{path} has several models, not the versions of one; choose one of them: "
                f"{', '.join(map(str, found[:5]))}."
            )
        raise BundleError(
            f"{path} has no model: neither it nor a directory in it has a "
            f"{manifest_file.FILE_NAME} or {CHECKPOINT}."
        )
    numbered = sorted(filter(_NUMBERED.fullmatch, entries), key=_by_number)
    return [*numbered, *sorted(set(entries) - set(numbered))]


def models_below(path: Path) -> list[Path]:
    """Return the directories of versions in ``path``, sorted; none if it can't be read.

    Unreadable ones (see `unreadable_below`) and hidden ones are left out.
    """
    return [directory for directory in _directories(path) if has_versions(directory)]


def unreadable_below(path: Path) -> list[Path]:
    """Return the directories in ``path`` that can't be read, and so may be models."""
    return [
        directory
        for directory in _directories(path)
        if directory.name != _OF_THE_FILE_SYSTEM and not os.access(directory, os.R_OK | os.X_OK)
    ]


def bundles_below(path: Path) -> list[Path]:
    """Return the directories in ``path`` that are bundles, as in a directory of versions."""
    return [directory for directory in _directories(path) if _may_hold_model(directory)]


def has_versions(path: Path) -> bool:
    """Return True if ``path`` is a directory with a readable version in it."""
    try:
        return any(map(_may_hold_model, path.iterdir()))
    except OSError:
        return False


def _directories(path: Path) -> list[Path]:
    with suppress(OSError):
        entries = sorted(path.iterdir())
        return [each for each in entries if not each.name.startswith(".") and _is_directory(each)]
    return []


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def numbered_versions(path: Path) -> list[str]:
    """Return the versions in a directory of them that are numbers and dots, lowest first.

    Raises `BundleError` when there is none.
    """
    entries = versions(path)
    numbered = [name for name in entries if _NUMBERED.fullmatch(name)]
    if not numbered:
        raise BundleError(
            f"{path} has no version that is a number; name the directory of one as the model, "
            f"such as {path / entries[0]}, or set model.version to one of: {', '.join(entries)}."
        )
    return numbered


def _unreadable(path: Path, error: Exception) -> BundleError:
    return BundleError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}.")


def is_bare(path: Path) -> bool:
    """Return True if ``path`` is a checkpoint without a manifest."""
    return path.is_file() or not (path / manifest_file.FILE_NAME).is_file()


def open_bundle(path: Path, version: str | None = None) -> Bundle:
    """Read the manifest in directory ``path`` and verify every file against it.

    ``version`` is the requested one, or the one in the directory's name. Raises `BundleError`,
    which names the file that is missing, altered or malformed, or the wrong version.
    """
    manifest = read_manifest(path / manifest_file.FILE_NAME)
    check_version(path, manifest, version)
    for name, record in manifest.files.items():
        check_file(path / name, record)
    return describe(path, manifest)


def check_version(path: Path, manifest: Manifest, version: str | None) -> None:
    """Raise `BundleError` if the manifest in ``path`` is of another version than ``version``.

    None stands for any version.
    """
    if version is not None and manifest.version != version:
        raise BundleError(
            f"{path} should be version {version!r}, but its manifest says {manifest.version!r}; "
            "rename the directory or pack the bundle again."
        )


def check_file(file: Path, record: FileRecord) -> None:
    """Raise `BundleError` unless ``file`` matches ``record``, byte for byte."""
    try:
        if not file.is_file():  # a pipe would block
            raise BundleError(f"{file} is missing, or not a regular file.")
        if file.stat().st_size != record.size:
            kind = foreign_kind(file) or "was altered or cut short"
            raise BundleError(
                f"{file} has {file.stat().st_size:,} bytes, but the manifest says {record.size:,}: "
                f"it {kind}."
            )
        if file_sha256(file) != record.sha256:
            raise _altered(file)
    except OSError as error:
        raise BundleError(f"{file} can't be read: {error.strerror}.") from error


def read_verified(file: Path, record: FileRecord) -> bytes:
    """Return the content of ``file``, which is the one of its ``record`` whatever became of it
    since it was checked. Raises `BundleError`.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file} can't be read: {error.strerror}.") from error
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise _altered(file)
    return content


def _altered(file: Path) -> BundleError:
    """Return the error of a file whose content is not that of its record."""
    return BundleError(
        f"{file} does not match the SHA-256 in the manifest: it was altered after it was packed. "
        "Restore it or pack the bundle again."
    )


def describe(path: Path, manifest: Manifest) -> Bundle:
    """Return the bundle in ``path`` as its manifest lists it, without checking the files.

    Raises `BundleError` if it lists no network.
    """
    networks = {name: path / name for name in network_files(manifest)}
    if manifest.has_network and not networks:
        raise BundleError(f"The manifest of {path} lists neither {CHECKPOINT} nor {ONNX}.")
    golden = path / manifest.golden_file if manifest.golden_file else None
    return Bundle(manifest, networks.get(CHECKPOINT), networks.get(ONNX), golden, path)


def network_files(manifest: Manifest) -> list[str]:
    """Return the files of a manifest that a runtime executes; those of a handler are its own."""
    of_handler = manifest.handler.all_files if manifest.handler else ()
    files = [name for name in (CHECKPOINT, ONNX) if name in manifest.files]
    return [name for name in files if manifest.has_network and name not in of_handler]


def open_bare_checkpoint(
    path: Path,
    *,
    input_dim: int,
    output_dim: int,
    version: str,
    feature_names: Sequence[str],
    class_names: Sequence[str] = (),
) -> Bundle:
    """Return the bundle of a checkpoint without a manifest, described by the names in the settings.

    Raises `BundleError` if they don't fit the checkpoint's dimensions.
    """
    if not feature_names:
        raise BundleError(
            f"{path} has no manifest to name its features: set model.feature_names to the "
            f"{input_dim} names, in order."
        )
    if len(feature_names) != input_dim or len(set(feature_names)) != input_dim:
        raise BundleError(
            f"model.feature_names must be {input_dim} different names, as many as {path} has "
            f"inputs; {len(feature_names)} are given."
        )
    classes = tuple(class_names) or tuple(f"class_{index}" for index in range(output_dim))
    if len(classes) != output_dim or len(set(classes)) != output_dim:
        raise BundleError(
            f"model.class_names must be {output_dim} different names, as many as {path} has "
            f"outputs; {len(classes)} are given."
        )
    check_names("model.feature_names", feature_names)
    check_names("model.class_names", classes)
    manifest = Manifest.of_classifier(
        path.stem,
        version,
        [Feature(name) for name in feature_names],
        classes,
        description="A checkpoint without a manifest.",
    )
    return Bundle(manifest, path, None)


def checkpoint_path(path: Path) -> Path:
    """Return the checkpoint file of a bare checkpoint: ``path`` itself, or ``model.pt`` in it."""
    return path if path.is_file() else path / CHECKPOINT


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _may_hold_model(path: Path) -> bool:
    """Return True if ``path`` may be a version. An unreadable one may be."""
    try:
        return bool(VERSION.fullmatch(path.name)) and _holds_model(path)
    except OSError:
        return True


def _holds_model(path: Path) -> bool:
    return (path / manifest_file.FILE_NAME).is_file() or (path / CHECKPOINT).is_file()


def _by_number(name: str) -> tuple[list[int], str]:
    """Return the key for numeric order of versions: 10 after 9, and 1.2 after 1.

    Ties are ordered by name: every process must order 1 and 01 alike, in any file system.
    """
    return [int(part) for part in name.split(".")], name
