"""The history of a model's releases: one JSON object a line in ``models/NAME/history.jsonl``.

A change is written down, and on the disk, *before* the release file is replaced. So no release is
ever in force that the history doesn't know of, whenever the process is killed; what may be left is
a last line for a change that did not come about. It is told by what followed: the release that was
found afterwards is the one from before it.
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
    """One change of the release: ``who`` did it ``when`` (UTC, ISO 8601), and ``why``.

    ``before`` is None where the release file of then could not be read. ``made`` is False for one
    that was cut off before it took effect.
    """

    when: str
    who: str
    action: str
    before: Release | None
    after: Release
    why: str = ""
    made: bool = True


def new_change(action: str, before: Release | None, after: Release, why: str) -> Change:
    """Return the change that this process's user makes now."""
    when = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Change(when, login_name(), action, before, after, why)


def login_name() -> str:
    """Return the login name of the process's user; the number where there is no name."""
    user = os.getuid()  # not $USER, which anybody can set and containers lack
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def read_history(directory: Path) -> list[Change]:
    """Return the changes of the model in ``directory``, the oldest first; a line cut short is none.

    Raises `BundleError` when the file can't be read, with the line that is no change.
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
    """Return the stable versions that lead to ``now``, which is the last of them.

    ``earlier`` are those before the first change. A rollback takes back what it left, wherever that
    stands, so that the next one goes further back and not forth again. What was changed by hand
    counts as promoted.
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


def change_document(change: Change) -> dict[str, Any]:
    """Return ``change`` as the JSON object that stands in the file."""
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
    """Write ``change`` down, then let it be made; it is taken back if making it raises
    `BundleError`, which says that nothing was changed.

    Only who holds the lock may. Raises `BundleError` when the disk is full or the file can't be
    written to.
    """
    path = directory / FILE_NAME
    length = _append(path, json.dumps(change_document(change)).encode() + b"\n")
    try:
        yield
    except BundleError:
        with suppress(OSError):  # a line that stays is told by what followed
            os.truncate(path, length)
        raise


def _append(path: Path, line: bytes) -> int:
    """Append ``line``, flushed to the disk; return the length of the file without it.

    What a killed process left of a line is cut off first.
    """
    try:
        is_new = not path.exists()
        with path.open("a+b") as file:
            file.seek(0)
            content = file.read()
            length = content.rfind(b"\n") + 1
            tail = content[length:]
            if _parse(tail) is not None:  # whole, but for the end of its line
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
    """Return the change on a line; None where it is none."""
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
    """Mark the changes that did not come about, by the release that was found after each."""
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
    """Return whether ``change`` came about, where ``found`` was in force afterwards.

    Another release than either was written by hand, on top of it.
    """
    return found is None or found == change.after or found != change.before
