"""Files that are replaced under a lock: whole or not at all, and nothing is left beside them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from app.documents.files import locked, remove_scratch, replace_file


class Busy(Exception):
    pass


class Unusable(Exception):
    pass


def test_a_file_gets_its_mode_whatever_the_umask_is(tmp_path: Path) -> None:
    file = tmp_path / "a file"
    before = os.umask(0o077)
    try:
        replace_file(file, b"one", mode=0o644)
    finally:
        os.umask(before)
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"one", 0o644)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("keep_access", "mode"), [(True, 0o640), (False, 0o600)])
def test_a_file_that_is_replaced_keeps_its_mode_where_that_is_asked(
    tmp_path: Path, keep_access: bool, mode: int
) -> None:
    file = tmp_path / "file"
    replace_file(file, b"one", mode=0o600, keep_access=keep_access)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    replace_file(file, b"two", mode=0o600, keep_access=keep_access)
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"two", mode)


def test_what_can_not_be_replaced_is_untouched_and_leaves_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "taken"
    directory.mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(directory, b"one", mode=0o600)
    assert list(tmp_path.iterdir()) == [directory]


def test_only_what_was_left_of_the_same_file_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".a[1].json-x0x0x0x0.tmp"
    others = {".a[1].json-backup", ".a1.json-x0x0x0x0.tmp", "a[1].json", ".a[1].json-dir.tmp"}
    for name in {left.name, *others} - {".a[1].json-dir.tmp"}:
        (tmp_path / name).touch()
    (tmp_path / ".a[1].json-dir.tmp").mkdir()
    remove_scratch(tmp_path / "a[1].json")
    assert {path.name for path in tmp_path.iterdir()} == others


def test_a_lock_is_held_by_one_and_given_back(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    for _ in range(2):
        with locked(lock, Unusable, busy=Busy(), mode=0o600):
            with pytest.raises(Busy), locked(lock, Unusable, busy=Busy(), mode=0o600):
                raise AssertionError
            with (
                pytest.raises(Busy),
                locked(lock, Unusable, busy=Busy(), mode=0o600, wait_seconds=0.05),
            ):
                raise AssertionError
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_a_lock_that_can_not_be_had_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(Unusable, match=r"nowhere/\.lock can't be opened: No such file"),
        locked(tmp_path / "nowhere" / ".lock", Unusable, busy=Busy(), mode=0o600),
    ):
        raise AssertionError
