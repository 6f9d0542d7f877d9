"""Identities: what distinguishes a file, or the files of a bundle, from those that replaced
them.
"""

from __future__ import annotations

from pathlib import Path

from ..model.errors import BundleError

Identity = tuple[int, ...] | None
"""Of one file; None for no file."""


def file_identity(path: Path) -> Identity:
    """Return the identity of a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def bundle_identity(path: Path) -> object:
    """Return the identities of the files of a bundle, or of a checkpoint. Raises `BundleError`."""
    try:
        files = [path] if path.is_file() else sorted(path.iterdir())
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    return path, tuple((file.name, file_identity(file)) for file in files)
