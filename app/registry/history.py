"""The history of a model's releases: one JSON object a line in ``models/NAME/history.jsonl``.

A change is appended, and flushed to the disk, *before* the release file is replaced. So no release
is ever in force that the history lacks, whenever the process is killed; at most, the last line is a
change that did not happen. What followed shows that: the release found afterwards is the one from
before it.
"""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..documents.files import sync_directory
from ..documents.text import NotUtf8, decode
from ..model.errors import BundleError
from .release import Release, parse_release, read_release, release_document

FILE_NAME = "history.jsonl"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the release: ``who`` made it, ``when`` (UTC, ISO 8601), and ``why``.

    ``before`` is None if the release file could not be read at the time. ``made`` is False for a
    change that was interrupted before it took effect.
    """

    when: str
    who: str
    action: str
    before: Release | None
    after: Release
    why: str = ""
    made: bool = True


def new_change(action: str, before: Release | None, after: Release, why: str) -> Change:
    """Return a change made now by this process's user."""
    when = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Change(when, login_name(), action, before, after, why)


def login_name() -> str:
    """Return the login name of the process's user; the number if there is no name."""
    user = os.getuid()  # not $USER, which anyone can set and containers lack
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def read_history(directory: Path) -> list[Change]:
    """Return the changes of the model in ``directory``, oldest first; a truncated line is ignored.

    Raises `BundleError`, which names the line that is not a change, or if the file can't be read.
    """
    path = directory / FILE_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    whole, end, tail = content.rpartition(b"\n")
    try:
        lines = decode(whole).split("\n") if end else []
    except NotUtf8 as error:
        raise BundleError(f"{path} {error}") from None
    changes = []
    for number, line in enumerate(lines, start=1):
        change = _parse(line)
        if change is None:
            raise BundleError(f"{path}: line {number} is not a change; correct or remove it.")
        changes.append(change)
    last = _parse(tail)
    return _told_by_what_followed([*changes, last] if last else changes, directory)


def stable_versions(earlier: Sequence[str], changes: Sequence[Change], now: str) -> list[str]:
    """Return the stable versions that led to ``now``, which is the last of them.

    ``earlier`` are those before the first change. A rollback removes the version that it left, so
    that the next one goes further back and not forward. A change by hand counts as a promotion.
    """
    stables = list(earlier)
    left: set[str] = set()

    def add(version: str) -> None:
        if stables[-1:] != [version]:
            stables.append(version)

    for change in changes:
        if not change.made:
            continue
        if change.before is not None:
            add(change.before.stable)
        if change.action == "rollback":
            while stables and stables[-1] != change.after.stable:
                left.add(stables.pop())
            add(change.after.stable)
        else:
            left.discard(change.after.stable)
            add(change.after.stable)
    add(now)
    return [version for version in stables[:-1] if version not in left | {now}] + [now]


def recorded_code(directory: Path, version: str) -> str | None:
    """Return the SHA-256 of the code with which ``version`` was released last; empty if it had
    none or was never released, and None where there is no release.

    Raises `BundleError` if the release or the history can't be read.
    """
    release = read_release(directory)
    if release is not None and version in release.versions:
        return release.code.get(version, "")
    for change in reversed(read_history(directory)):
        if change.made and version in change.after.versions:
            return change.after.code.get(version, "")
    return None if release is None else ""


def change_document(change: Change) -> dict[str, Any]:
    """Return ``change`` as the JSON object in the file."""
    return {
        "when": change.when,
        "who": change.who,
        "action": change.action,
        "from": change.before and release_document(change.before),
        "to": release_document(change.after),
        "why": change.why,
    }


@contextmanager
def recorded(directory: Path, change: Change) -> Iterator[None]:
    """Append ``change`` and let the caller make it; the line is removed if that raises
    `BundleError`, which means that nothing was changed.

    The caller must hold the lock. Raises `BundleError` if the disk is full or the file can't be
    written.
    """
    path = directory / FILE_NAME
    length = _append(path, json.dumps(change_document(change)).encode() + b"\n")
    try:
        yield
    except BundleError:
        with suppress(OSError):  # a line that remains is recognised by what follows
            os.truncate(path, length)
        raise


def _append(path: Path, line: bytes) -> int:
    """Append ``line``, flushed to the disk; return the length of the file without it.

    A partial line of a killed process is removed first.
    """
    try:
        is_new = not path.exists()
        with path.open("a+b") as file:
            file.seek(0)
            content = file.read()
            length = content.rfind(b"\n") + 1
            tail = content[length:]
            if _parse(tail) is not None:  # complete, except for its newline
                file.write(b"\n")
                length = len(content) + 1
            elif tail:
                file.truncate(length)
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    os.truncate(path, length)
                raise
        if is_new:
            sync_directory(path.parent)
    except OSError as error:
        raise BundleError(
            f"{path} can't be written: {error.strerror}. The release is unchanged."
        ) from error
    return length


def _parse(line: str | bytes) -> Change | None:
    """Return the change on a line; None if it is not one."""
    try:
        document = json.loads(line)
        before = document["from"]
        texts = [document[key] for key in ("when", "who", "action", "why")]
        if not all(isinstance(text, str) for text in texts):
            return None
        when, who, action, why = texts
        after = parse_release(document["to"])
        return Change(
            when, who, action, None if before is None else parse_release(before), after, why
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, BundleError):
        return None


def _told_by_what_followed(changes: Sequence[Change], directory: Path) -> list[Change]:
    """Mark the changes that did not happen, by the release that was found after each."""
    if not changes:
        return []
    made = [_was_made(change, following.before) for change, following in pairwise(changes)]
    try:
        now = read_release(directory)
        # Without a file: one was removed by hand if any change came about before.
        made.append(any(made) if now is None else _was_made(changes[-1], now))
    except BundleError:  # a damaged file tells nothing
        made.append(True)
    return [replace(change, made=was) for change, was in zip(changes, made, strict=True)]


def _was_made(change: Change, found: Release | None) -> bool:
    """Return True if ``change`` happened, given that ``found`` was in force afterwards.

    A release that is neither was written by hand, after the change.
    """
    return found is None or found == change.after or found != change.before
