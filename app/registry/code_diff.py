"""How the code of two versions differs, for whoever promotes one.

The files were written by others: what is shown of them is bounded.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from ..model import manifest_file
from ..model.bundle import check_file
from ..model.errors import BundleError
from ..model.manifest import FileRecord, Manifest

MOST_LINES = 1000
_LONGEST_LINE = 300
_LARGEST_FILE = 256 << 10
"""Bytes of a file at most whose lines are compared."""


def code_changes(directory: Path, old: str | None, new: str) -> list[str]:
    """Return the unified diff of the code of version ``new`` of the model in ``directory`` against
    ``old``, None for none.

    At most `MOST_LINES` lines; empty if there is no difference, or ``new`` can't be read.
    """
    try:
        after = _files(_manifest(directory, new))
    except BundleError:
        return []  # its verification says why
    before: Mapping[str, FileRecord] = {}
    if old is not None:
        try:
            before = _files(_manifest(directory, old))
        except BundleError as error:
            return [f"The code of version {old} can't be compared. {error}"]
    lines = [*islice(_lines(directory, (old, before), (new, after)), MOST_LINES + 1)]
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = [f"... (only the first {MOST_LINES:,} lines are shown)"]
    return lines


def _manifest(directory: Path, version: str) -> Manifest:
    return manifest_file.read_manifest(directory / version / manifest_file.FILE_NAME)


def _files(manifest: Manifest) -> dict[str, FileRecord]:
    names = manifest.handler.all_files if manifest.handler else ()
    return {name: manifest.files[name] for name in names}


_Side = tuple[str | None, Mapping[str, FileRecord]]


def _lines(directory: Path, old: _Side, new: _Side) -> Iterator[str]:
    for name in sorted({*old[1], *new[1]}):
        if old[1].get(name) == new[1].get(name):
            continue
        texts = [
            _text(directory / str(version) / name, files.get(name)) for version, files in (old, new)
        ]
        one, other = (
            f"{version}/{name}" if name in files else "/dev/null" for version, files in (old, new)
        )
        before, after = texts
        if before is None or after is None:
            yield f"Files {one} and {other} differ"
            continue
        yield from (
            line[:_LONGEST_LINE].rstrip("\n")
            for line in difflib.unified_diff(before, after, one, other, lineterm="")
        )


def _text(path: Path, record: FileRecord | None) -> list[str] | None:
    """Return the lines of a file; None if it is no text, is large, or isn't as it was verified."""
    if record is None:
        return []
    try:
        if record.size > _LARGEST_FILE:
            return None
        check_file(path, record)
        content = path.read_bytes().decode()
    except (BundleError, OSError, UnicodeDecodeError):
        return None
    return None if "\0" in content else content.splitlines()
