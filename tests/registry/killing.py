"""A program that kills a change of the release, with SIGKILL, before each of its steps in turn.

``python -m tests.registry.killing write_release|promote DIRECTORY``. A step is one instruction of
the interpreter in our modules and in `tempfile`: between any two system calls there are some. Each
attempt is a process of its own, forked from this one, and what it left is examined here.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from app.documents import files
from app.model.features import Feature
from app.model.manifest import FileRecord, Manifest
from app.model.manifest_file import FILE_NAME, read_manifest, write_manifest
from app.registry import history, release, repository
from app.registry.history import read_history
from app.registry.release import Release, read_release, write_release
from app.registry.repository import Repository
from app.registry.verification import Report

OLD, NEW = Release("1", "2", "canary", 0.25), Release("2")
TRACED = {module.__file__ for module in (files, history, release, repository, tempfile)}


def main() -> None:
    what, directory = sys.argv[1], Path(sys.argv[2])
    verify_nothing()
    for version in ("1", "2"):
        pretend_version(directory / version)
    changes: dict[str, Callable[[], Any]] = {
        "write_release": lambda: write_release(directory, NEW),
        "promote": lambda: Repository(directory).promote("2", message="it is better"),
    }
    seen: Counter[str] = Counter()
    for step in itertools.count(1):
        restore(directory)
        if not killed_at(step, changes[what]):
            break
        examine(directory, seen)
    assert read_release(directory) == NEW
    print(json.dumps(seen))


def examine(directory: Path, seen: Counter[str]) -> None:
    """See that what a killed process left is whole, and in nobody's way."""
    now = read_release(directory)
    assert now in (OLD, NEW), now
    seen["new" if now == NEW else "old"] += 1
    litter = list(directory.glob(".release.toml-*"))
    seen["litter"] += bool(litter)
    repo = Repository(directory)
    assert repo.versions() == ["1", "2"]
    if sys.argv[1] == "promote":
        assert last_made(directory) == now
    if now == OLD:
        repo.clear("after the crash")
        assert last_made(directory) == read_release(directory) == Release("1")
        assert not list(directory.glob(".release.toml-*"))
    else:
        assert not litter


def last_made(directory: Path) -> Release:
    """Return the release that is in force by what the history tells."""
    return [change for change in read_history(directory) if change.made][-1].after


def killed_at(step: int, change: Callable[[], Any]) -> bool:
    """Do ``change`` in a process that is killed before its instruction number ``step``."""
    child = os.fork()
    if child == 0:
        left = step

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in TRACED:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            change()
        except BaseException as error:  # a forked child must not go on as its parent
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def restore(directory: Path) -> None:
    for path in directory.glob(".release.toml-*"):
        path.unlink()
    write_release(directory, OLD)
    first = history.Change("2026-01-01T00:00:00+00:00", "ann", "canary", Release("1"), OLD)
    (directory / "history.jsonl").write_text(json.dumps(history.change_document(first)) + "\n")


def pretend_version(path: Path) -> None:
    """Make a version of a manifest alone."""
    path.mkdir()
    manifest = Manifest.of_classifier(
        *("m", path.name, (Feature("x"),), ("a", "b")),
        files={"golden.npz": FileRecord("0" * 64, 1)},
        golden_file="golden.npz",
    )
    write_manifest(manifest, path / FILE_NAME)


def verify_nothing() -> None:
    """Take every version for a good one: what verifying does to the disk is nothing."""

    def pass_all(directory: Path, version: str, **_: Any) -> Report:
        return Report(version, read_manifest(directory / version / FILE_NAME), (), ())

    repository.verify = pass_all


if __name__ == "__main__":
    main()
