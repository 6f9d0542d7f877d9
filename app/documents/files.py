"""Files that one process changes at a time, while others may read them.

A change is made under a lock and replaces the file in one step: a reader finds the old content or
the new, never a part. It knows nothing of what the files hold.
"""

from __future__ import annotations

import fcntl
import glob
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_RETRY_SECONDS = 0.02
_SUFFIX = ".tmp"


@contextmanager
def locked(
    path: Path,
    fail: Callable[[str], Exception],
    *,
    busy: Exception,
    mode: int,
    wait_seconds: float = 0.0,
) -> Iterator[None]:
    """Hold the lock of the file at ``path``, which is created with ``mode`` if it is missing.

    The system releases it when the process dies. Raises ``busy`` if another process holds it for
    longer than ``wait_seconds``, and ``fail(sentence)`` if it can't be used.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    except OSError as error:
        raise fail(f"{path} can't be opened: {error.strerror}.") from error
    try:
        until = time.monotonic() + wait_seconds
        while not _lock(descriptor, path, fail):
            if time.monotonic() >= until:
                raise busy
            time.sleep(_RETRY_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, fail: Callable[[str], Exception]) -> bool:
    """Return False if another process holds the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise fail(f"{path} can't be locked: {error.strerror}.") from error
    return True


def replace_file(path: Path, content: bytes, *, mode: int, keep_access: bool = False) -> None:
    """Replace the file at ``path`` in one step that outlives a crash.

    It is written beside it, flushed to the disk, and renamed over it. The new file has ``mode``, or
    with ``keep_access`` the owner, group and mode of the file that it replaces, if there is one.
    Raises OSError; the old file is then untouched.
    """
    scratch = ""
    try:
        descriptor, scratch = tempfile.mkstemp(_SUFFIX, f".{path.name}-", path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            with suppress(FileNotFoundError):
                if keep_access:
                    before = path.stat()
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                    mode = stat.S_IMODE(before.st_mode)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        Path(scratch).rename(path)
    except OSError:
        if scratch:
            Path(scratch).unlink(missing_ok=True)
        raise
    with suppress(OSError):  # it is replaced; only the flush to the disk is left
        sync_directory(path.parent)


def remove_scratch(path: Path) -> None:
    """Remove temporary files for ``path`` left by killed processes; the caller holds its lock."""
    for scratch in path.parent.glob(f".{glob.escape(path.name)}-*{_SUFFIX}"):
        with suppress(OSError):
            scratch.unlink()


def sync_directory(directory: Path) -> None:
    """Flush to the disk what was created or renamed in ``directory``. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
