"""Unpacking an archive: a zip, or a tar compressed by gzip, that may mean harm.

Its cost is bounded in files, bytes and memory, and nothing is written outside the directory that
it is unpacked to: no name leads elsewhere, and links and devices are refused.
"""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ...model.errors import BundleError, first_line, shown

MOST_FILES = 1000
"""Entries of an archive at most, with its directories."""
LARGEST_CONTENT = 16 << 30
"""Bytes that an archive may unpack to."""
_MOST_TIMES, _SMALL = 200, 64 << 20
"""The multiple of its own size that an archive may unpack to, beyond the first 64 MiB."""
_LARGEST_DIRECTORY = 4 << 20
"""Bytes at most that say where the files of a zip are."""
_CHUNK = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError),
    *(ValueError, zlib.error, lzma.LZMAError, gzip.BadGzipFile),
)
METADATA = "MAR-INF/MANIFEST.json"


@dataclass(slots=True)
class Unpacked:
    """The ``files`` of an archive, by their names in ``directory``.

    ``metadata`` is the archive's own manifest. ``left`` says of each file that was not taken why.
    """

    directory: Path
    metadata: bytes = b""
    files: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def unpack(path: Path, directory: Path) -> Unpacked:
    """Unpack the archive ``path`` into ``directory``, which exists and is empty.

    Raises `BundleError` for an archive that is damaged, exceeds the bounds, or has a name or an
    entry that no honest one has; and OSError if ``directory`` can't be written to.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
        entries = _of_zip(path) if is_zip else _of_tar(path)
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror or error}.") from error
    unpacked = Unpacked(directory)
    taken = _Budget(path)
    try:
        for name, size, open_entry in entries:
            taken.add(size)
            _take(unpacked, taken, name, size, open_entry)
    except _DAMAGED as error:
        raise BundleError(f"{path} is damaged: {first_line(error)}.") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place that no file has
            raise
        raise BundleError(f"{path} is damaged: it says that files are where none can be.") from None
    return unpacked


_Entry = tuple[str, int, Any]
"""The name of a file in an archive, its size as stated, and what opens it."""


class _Budget:
    """Counts the files and bytes of an archive, and refuses more than it may have."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size
        self.left = min(LARGEST_CONTENT, _SMALL + _MOST_TIMES * self._size)
        self._files = 0

    def add(self, size: int) -> None:
        self._files += 1
        self.left -= size
        if self._files > MOST_FILES:
            raise BundleError(f"{self._path} has more than {MOST_FILES:,} entries.")
        if self.left < 0:
            raise BundleError(
                f"{self._path} of {self._size:,} bytes unpacks to more than it may: "
                f"{_MOST_TIMES} times its size beyond {_SMALL >> 20} MiB, and at most "
                f"{LARGEST_CONTENT >> 30} GiB. It may be a bomb."
            )


def _take(unpacked: Unpacked, taken: _Budget, name: str, size: int, open_entry: Any) -> None:
    if name == METADATA:
        if unpacked.metadata:
            raise BundleError(f"the archive has two files {METADATA}.")
        if size > 1 << 20:
            raise BundleError(f"{METADATA} has {size:,} bytes, which exceeds the limit of 1 MiB.")
        with open_entry() as file:
            unpacked.metadata = file.read(size)
        return
    if "/" in name or not _NAME.fullmatch(name):
        why = "a bundle has no directories" if "/" in name else "its name is no plain file name"
        unpacked.left.append(f"{shown(name)} is left out: {why}.")
        return
    if name in unpacked.files:
        raise BundleError(f"the archive has two files {shown(name)}.")
    unpacked.files.append(name)
    with open_entry() as source, (unpacked.directory / name).open("xb") as target:
        _copy(source, target, size)


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    """Copy ``size`` bytes, as stated; what is larger or shorter is damaged."""
    left = size
    while left:
        chunk = source.read(min(left, _CHUNK))
        if not chunk:
            raise EOFError("a file is shorter than stated")
        target.write(chunk)
        left -= len(chunk)
    if source.read(1):
        raise EOFError("a file is longer than stated")


def check_path(name: str) -> str:
    """Return the name of an entry, without what stands for the directory itself.

    Raises `BundleError` for one that would lead out of it.
    """
    path = PurePosixPath(name)
    if "\\" in name or "\0" in name or path.is_absolute() or ".." in path.parts:
        raise BundleError(f"the archive has an entry {shown(name)}, which leads out of it.")
    return str(path)


def _of_zip(path: Path) -> Iterator[_Entry]:
    with _opened(path) as archive:
        for entry in archive.infolist():
            name = check_path(entry.filename)
            if entry.is_dir():
                continue
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise BundleError(f"{path}: {shown(name)} is a link or a device, and no file.")
            if entry.flag_bits & 0x1:
                raise BundleError(f"{path}: {shown(name)} is encrypted.")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BundleError(f"{path}: {shown(name)} is compressed in an unusual way.")
            yield name, entry.file_size, lambda entry=entry: archive.open(entry)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip whose directory is of a sensible size: all of it is read into memory."""
    with _BoundedFile(path) as file, zipfile.ZipFile(file) as archive:
        if len(archive.infolist()) > MOST_FILES:
            raise BundleError(f"{path} has more than {MOST_FILES:,} entries.")
        file.bounded = False
        yield archive


class _BoundedFile(io.FileIO):
    """A file of which no large part is read at once while it is ``bounded``."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.bounded = True

    def read(self, size: int | None = -1, /) -> bytes:
        if self.bounded and (size is None or size < 0 or size > _LARGEST_DIRECTORY):
            left = Path(str(self.name)).stat().st_size - self.tell()
            wanted = left if size is None or size < 0 else size
            if wanted > _LARGEST_DIRECTORY:
                raise BundleError(f"{self.name} has more than {MOST_FILES:,} entries.")
        return super().read(-1 if size is None else size) or b""


def _of_tar(path: Path) -> Iterator[_Entry]:
    """Yield the files of a tar as ``torch-model-archiver --archive-format tgz`` writes it: in a
    directory with the name of the model.
    """
    budget = _Budget(path)
    with (
        gzip.open(path, "rb") as content,
        tarfile.open(path, "r|", _Counted(content, budget)) as archive,  # type: ignore[call-overload]
    ):
        for number, entry in enumerate(archive):
            if number >= MOST_FILES:  # with those that are not taken, such as directories
                raise BundleError(f"{path} has more than {MOST_FILES:,} entries.")
            name = check_path(entry.name)
            if entry.isdir():
                continue
            if not entry.isreg():
                raise BundleError(f"{path}: {shown(name)} is a link or a device, and no file.")
            inside = name.partition("/")[2]
            if inside:
                yield inside, entry.size, lambda entry=entry: archive.extractfile(entry)


class _Counted:
    """The unpacked bytes of a tar, counted: what it says of its sizes need not be true."""

    def __init__(self, content: Any, budget: _Budget) -> None:
        self._content, self._budget, self._read = content, budget, 0

    def read(self, size: int) -> bytes:
        chunk: bytes = self._content.read(size)
        self._read += len(chunk)
        if self._read > self._budget.left:
            self._budget.add(self._read)
        return chunk
