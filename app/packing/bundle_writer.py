"""Writing bundles: a directory is put into place completely, or not at all.

Nothing here knows what a network is, and nothing imports torch.
"""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from msgspec.structs import replace

from ..model import bundle as bundles
from ..model import manifest_file
from ..model.errors import BundleError, listed
from ..model.golden import FILE_NAME as GOLDEN
from ..model.golden import Golden, write_golden
from ..model.manifest import FileRecord, Manifest
from ..version import FOR_PACKING


def write_bundle(
    out: Path, manifest: Manifest, golden: Golden, fill: Callable[[Path], None]
) -> Manifest:
    """Write a bundle to the directory ``out``, completely or not at all; return its manifest.

    ``fill`` writes the files into the directory that is passed to it, or raises; the golden data
    and the checksums of all are added to ``manifest``. An existing bundle at ``out`` is replaced.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        directory = Path(scratch) / out.name
        directory.mkdir()
        fill(directory)
        write_golden(golden, manifest.signature, directory / GOLDEN)
        files = {
            file.name: FileRecord(bundles.file_sha256(file), file.stat().st_size)
            for file in sorted(directory.iterdir())
        }
        complete = replace(manifest, files=files, golden_file=GOLDEN)
        manifest_file.write_manifest(complete, directory / manifest_file.FILE_NAME)
        place_bundle(directory, out, replaces=True)
    return complete


def place_bundle(directory: Path, out: Path, *, replaces: bool) -> None:
    """Move the bundle in ``directory``, which is on the same disk, to ``out``.

    Raises `BundleError` if it can't be read, or if ``out`` exists and must not be replaced.
    """
    bundles.open_bundle(directory)  # check that what was written can be read
    if replaces and out.exists():
        _exchange(directory, out)
        return
    try:
        directory.rename(out)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise BundleError(
            f"{out} was created by another process in the meantime, and is kept."
        ) from error


def _exchange(new: Path, out: Path) -> None:
    """Exchange ``new`` and ``out``, in one step if the system can (renameat2(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    with suppress(AttributeError):
        if libc.renameat2(here, os.fsencode(new), here, os.fsencode(out), exchange) == 0:
            return
    aside = out.with_name(f".{out.name}-replaced-{os.getpid()}")
    out.rename(aside)
    try:
        new.rename(out)
    except BaseException:
        aside.rename(out)
        raise
    aside.rename(new)


def check_replaceable(out: Path) -> None:
    """Raise `BundleError` if packing to ``out`` would destroy something that is not a bundle."""
    if out.is_dir() and (not any(out.iterdir()) or (out / manifest_file.FILE_NAME).is_file()):
        return
    if out.exists():
        raise BundleError(f"{out} exists and is not a bundle, so it is not replaced.")


def require_packages(*names: str) -> None:
    """Raise `BundleError` if a package is missing that packing needs in addition to serving's."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise BundleError(f"Packing needs {listed(missing)}: pip install {FOR_PACKING}")
