"""Changes of a release: verified, compared, made by one at a time, and remembered."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.documents import files
from app.model.errors import BundleError, ChangeUnderWay, NothingToChange, ReleaseRejected
from app.registry import history as histories
from app.registry.history import Change, change_document, read_history
from app.registry.release import Release, read_release, write_release
from app.registry.repository import Repository
from tests.damage import DAMAGE, corrupt, edit_manifest


@pytest.fixture
def repository(versions: Path) -> Repository:
    """A model of versions 1, 2 and 3, of which 1 is released."""
    write_release(versions, Release("1"))
    return Repository(versions)


def state(repository: Repository) -> tuple[bytes, bytes]:
    """What a change changes: the release file and the history, byte for byte."""
    files = [repository.directory / name for name in ("release.toml", "history.jsonl")]
    return tuple(file.read_bytes() if file.exists() else b"" for file in files)  # type: ignore[return-value]


def rename_a_feature(version: Path) -> None:
    edit_manifest(version, lambda m: m["features"][0].update(name="years"))


def test_promoting_replaces_the_release_and_is_remembered(repository: Repository) -> None:
    started = datetime.now(UTC)
    change = repository.promote("2", message="0.01 better")
    assert read_release(repository.directory) == Release("2")
    assert (change.action, change.before, change.after) == ("promote", Release("1"), Release("2"))
    assert change.why == "0.01 better"
    assert change.who == pwd.getpwuid(os.getuid()).pw_name
    when = datetime.fromisoformat(change.when)
    assert when.utcoffset() is not None
    assert abs((when - started).total_seconds()) < 60
    assert repository.history() == [change]
    (line,) = (repository.directory / "history.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "when": change.when,
        "who": change.who,
        "action": "promote",
        "from": {"stable": "1"},
        "to": {"stable": "2"},
        "why": "0.01 better",
    }


def test_the_first_release_follows_the_version_that_served_as_the_highest(versions: Path) -> None:
    change = Repository(versions).promote("1")
    assert (change.before, change.after) == (Release("3"), Release("1"))


def test_the_highest_version_can_be_held_before_a_higher_one_is_added(versions: Path) -> None:
    repository = Repository(versions)
    assert repository.promote("3").after == Release("3") == read_release(versions)
    shutil.copytree(versions / "3", versions / "4")
    assert repository.release() == Release("3")
    assert [change.made for change in repository.history()] == [True]


def test_where_no_version_is_a_number_the_first_is_promoted_without_a_comparison(
    versions: Path,
) -> None:
    for number, season in zip("123", ("autumn", "spring", "winter"), strict=True):
        (versions / number).rename(versions / season)
        for file in (versions / season / "manifest.json",):
            file.write_text(
                file.read_text().replace(f'"version": "{number}"', f'"version": "{season}"')
            )
        edit_manifest(versions / season, lambda m: m["files"].pop("model.pt"))
    change = Repository(versions).promote("spring")
    assert (change.before, change.after) == (None, Release("spring"))
    assert [change.made for change in read_history(versions)] == [True]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("way", ["promote", "canary", "shadow", "rollback"])
def test_a_version_that_does_not_verify_is_refused_and_the_release_stays(
    repository: Repository, damage: Callable[[Path], None], way: str
) -> None:
    if way == "rollback":
        repository.promote("2")
        repository.promote("3")
    damage(repository.directory / "2")
    if damage.__name__ == "lose_the_manifest":
        shutil.copy(repository.directory / "1" / "model.pt", repository.directory / "2")
    before = state(repository)
    ways: dict[str, Callable[[], Change]] = {
        "promote": lambda: repository.promote("2", allow_schema_change=True),
        "canary": lambda: repository.canary("2", 0.1),
        "shadow": lambda: repository.shadow("2"),
        "rollback": repository.rollback,
    }
    with pytest.raises(ReleaseRejected, match="fails verification") as error:
        ways[way]()
    assert DAMAGE[damage] in str(error.value)
    assert error.value.reasons
    assert state(repository) == before


def test_a_schema_that_breaks_callers_is_promoted_only_when_that_is_wanted(
    repository: Repository,
) -> None:
    rename_a_feature(repository.directory / "2")
    before = state(repository)
    with pytest.raises(ReleaseRejected) as error:
        repository.promote("2")
    assert error.value.reasons == ("The feature 'age' is now called 'years'.",)
    assert "--allow-schema-change" in str(error.value)
    for way in (lambda: repository.canary("2", 0.5), lambda: repository.shadow("2")):
        with pytest.raises(ReleaseRejected, match="'age' is now called 'years'"):
            way()
    assert state(repository) == before
    repository.promote("2", allow_schema_change=True)
    assert read_release(repository.directory) == Release("2")
    assert repository.rollback().after == Release("1")  # it has served: no question is asked


def test_a_stable_version_that_is_gone_can_not_be_compared_with(repository: Repository) -> None:
    shutil.rmtree(repository.directory / "1")
    with pytest.raises(ReleaseRejected, match="The stable version 1 can't be compared"):
        repository.promote("2")
    assert repository.promote("2", allow_schema_change=True).before == Release("1")


def test_promoting_what_is_stable_changes_nothing(repository: Repository) -> None:
    repository.canary("3", 0.1)
    before = state(repository)
    with pytest.raises(NothingToChange, match="1 is already stable; clear ends the canary of 3"):
        repository.promote("1")
    assert state(repository) == before
    repository.clear()
    with pytest.raises(NothingToChange, match=r"already stable\.$"):
        repository.promote("1")


def test_a_version_that_is_not_there_is_refused_with_those_that_are(
    repository: Repository,
) -> None:
    for version in ("4", "../example/1", ""):
        with pytest.raises(BundleError, match="has no version .* it has: 1, 2, 3"):
            repository.promote(version)


def test_a_single_bundle_has_no_release(versions: Path) -> None:
    (versions / "2" / "manifest.json").unlink()
    for path in (versions / "1", versions / "1" / "model.pt", versions / "2"):
        with pytest.raises(BundleError, match="is one model, not a directory of versions"):
            Repository(path).promote("1")
    with pytest.raises(BundleError, match="There is no model"):
        Repository(versions / "nowhere").release()


class TestCandidates:
    def test_a_canary_answers_a_share_until_it_is_promoted(self, repository: Repository) -> None:
        assert repository.canary("2", 0.1).after == Release("1", "2", "canary", 0.1)
        assert repository.canary("2", 0.5).after == Release("1", "2", "canary", 0.5)
        with pytest.raises(NothingToChange, match="2 is already the canary"):
            repository.canary("2", 0.5)
        assert repository.promote("2").after == Release("2") == read_release(repository.directory)

    def test_promoting_another_version_ends_a_canary_too(self, repository: Repository) -> None:
        repository.canary("2", 0.1)
        assert repository.promote("3").after == Release("3")

    def test_a_shadow_becomes_a_canary_and_is_cleared(self, repository: Repository) -> None:
        assert repository.shadow("2").after == Release("1", "2", "shadow")
        with pytest.raises(NothingToChange, match="2 is already the shadow"):
            repository.shadow("2")
        assert repository.canary("2", 0).after == Release("1", "2", "canary", 0.0)
        assert repository.clear("done").after == Release("1")
        with pytest.raises(NothingToChange, match="no candidate: version 1 is served alone"):
            repository.clear()

    def test_the_stable_version_is_no_candidate(self, repository: Repository) -> None:
        with pytest.raises(ReleaseRejected, match="can't be its own canary"):
            repository.canary("1", 0.1)
        with pytest.raises(ReleaseRejected, match="can't be its own shadow"):
            repository.shadow("1")
        (repository.directory / "release.toml").unlink()
        with pytest.raises(
            ReleaseRejected,
            match="is already served, though no release names it; first promote the",
        ):
            repository.canary("3", 0.1)

    @pytest.mark.parametrize("traffic", [-0.1, 1.1, float("nan"), float("inf")])
    def test_traffic_is_from_0_to_1(self, repository: Repository, traffic: float) -> None:
        before = state(repository)
        with pytest.raises(BundleError, match="traffic must be a number from 0 to 1"):
            repository.canary("2", traffic)
        assert state(repository) == before


class TestRollback:
    def test_each_goes_further_back_and_promote_goes_forth_again(
        self, repository: Repository
    ) -> None:
        repository.promote("2")
        repository.promote("3")
        assert repository.rollback("it is slow").after == Release("2")
        assert repository.rollback().after == Release("1")
        before = state(repository)
        with pytest.raises(ReleaseRejected, match="no version before 1"):
            repository.rollback()
        assert state(repository) == before
        repository.promote("3")
        assert repository.rollback().after == Release("1")
        assert [change.action for change in repository.history()].count("rollback") == 3

    def test_a_canary_is_ended_first(self, repository: Repository) -> None:
        repository.promote("2")
        repository.canary("3", 0.1)
        assert repository.rollback().after == Release("2")
        assert repository.rollback().after == Release("1")

    def test_a_canary_that_was_promoted_is_left_without_coming_back_as_one(
        self, repository: Repository
    ) -> None:
        repository.canary("2", 0.1)
        repository.promote("2")
        assert repository.rollback().after == Release("1")

    def test_a_shadow_answers_nobody_so_it_is_the_stable_version_that_goes_back(
        self, repository: Repository
    ) -> None:
        repository.promote("2")
        repository.shadow("3")
        assert repository.rollback().after == Release("1")

    def test_the_version_before_is_found_past_what_did_not_change_it(
        self, repository: Repository
    ) -> None:
        repository.promote("2")
        repository.canary("3", 0.1)
        repository.canary("3", 0.2)
        repository.clear()
        assert repository.rollback().after == Release("1")

    def test_what_was_left_is_not_come_back_to(self, repository: Repository) -> None:
        for version in ("2", "1", "3"):
            repository.promote(version)
        assert [repository.rollback().after.stable for _ in range(2)] == ["1", "2"]
        with pytest.raises(ReleaseRejected, match="no version before 2"):
            repository.rollback()
        repository.promote("1")
        repository.promote("3")
        assert repository.rollback().after.stable == "1"

    def test_what_was_written_by_hand_counts_as_promoted(self, repository: Repository) -> None:
        repository.promote("2")
        write_release(repository.directory, Release("3"))
        assert repository.rollback().after == Release("2")
        assert repository.rollback().after == Release("1")

    def test_what_was_left_stays_so_if_the_release_is_removed_by_hand(
        self, repository: Repository
    ) -> None:
        repository.promote("2")
        repository.promote("3")
        repository.rollback()
        shutil.rmtree(repository.directory / "3")
        (repository.directory / "release.toml").unlink()
        assert repository.release() == Release("2")
        assert [change.made for change in repository.history()] == [True] * 3
        assert repository.rollback().after == Release("1")

    def test_a_version_that_is_gone_is_named_and_none_is_passed_over(
        self, repository: Repository
    ) -> None:
        repository.promote("2")
        repository.promote("3")
        shutil.rmtree(repository.directory / "2")
        before = state(repository)
        with pytest.raises(
            ReleaseRejected, match="The version before 3 was 2, which is no longer in"
        ):
            repository.rollback()
        assert state(repository) == before

    def test_what_served_before_the_first_version_is_not_known(self, versions: Path) -> None:
        write_release(versions, Release("1"))
        with pytest.raises(ReleaseRejected, match="no version before 1"):
            Repository(versions).rollback()

    def test_a_change_that_was_cut_off_is_not_gone_back_to(self, repository: Repository) -> None:
        repository.promote("2")
        cut_off = Change("2026-01-01T00:00:00+00:00", "ann", "promote", Release("2"), Release("3"))
        with (repository.directory / "history.jsonl").open("a") as file:
            file.write(json.dumps(change_document(cut_off)) + "\n")
        assert [change.made for change in repository.history()] == [True, False]
        assert repository.rollback().after == Release("1")
        assert [change.made for change in repository.history()] == [True, False, True]


class TestDamagedRelease:
    @pytest.fixture
    def damaged(self, repository: Repository) -> Repository:
        """A repository whose release file lost its second half."""
        repository.promote("2")
        file = repository.directory / "release.toml"
        file.write_bytes(file.read_bytes()[:-8])
        return repository

    def test_nothing_is_built_on_it(self, damaged: Repository) -> None:
        before = state(damaged)
        for way in (
            damaged.rollback,
            damaged.clear,
            lambda: damaged.canary("3", 0.1),
            lambda: damaged.shadow("3"),
            lambda: damaged.promote("3"),
        ):
            with pytest.raises(BundleError, match=r"release\.toml"):
                way()
        assert state(damaged) == before

    def test_the_history_is_told_all_the_same(self, damaged: Repository) -> None:
        assert [change.made for change in damaged.history()] == [True]

    def test_it_is_replaced_when_that_is_wanted(self, damaged: Repository) -> None:
        change = damaged.promote("3", allow_schema_change=True)
        assert (change.before, change.after) == (None, Release("3"))
        assert [change.made for change in damaged.history()] == [True, True]
        assert damaged.rollback().after == Release("2")


class TestLock:
    def test_who_comes_second_is_told_and_changes_nothing(self, repository: Repository) -> None:
        before = state(repository)
        with (repository.directory / ".lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            for way in (
                lambda: repository.promote("2"),
                lambda: repository.canary("2", 0.1),
                lambda: repository.shadow("2"),
                repository.clear,
                repository.rollback,
            ):
                with pytest.raises(ChangeUnderWay, match="Another process is changing .*;"):
                    way()
        assert state(repository) == before
        repository.promote("2")

    def test_it_is_given_back_after_a_refusal(self, repository: Repository) -> None:
        corrupt(repository.directory / "2")
        for _ in range(2):
            with pytest.raises(ReleaseRejected):
                repository.promote("2")
        repository.promote("3")

    def test_reading_needs_no_lock(self, repository: Repository) -> None:
        repository.promote("2")
        with (repository.directory / ".lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert repository.release() == Release("2")
            assert len(repository.history()) == 1
            assert len(repository.summaries(None)) == 3

    def test_a_lock_that_can_not_be_had_is_told(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(files.fcntl, "flock", fail)
        with pytest.raises(BundleError, match=r"\.lock can't be locked: No locks available"):
            repository.promote("2")
        monkeypatch.undo()
        (repository.directory / ".lock").unlink()
        (repository.directory / ".lock").mkdir()
        with pytest.raises(BundleError, match=r"\.lock can't be opened: Is a directory"):
            repository.promote("2")


class TestHistory:
    def test_a_last_line_cut_anywhere_is_passed_over_and_then_replaced(
        self, repository: Repository
    ) -> None:
        repository.promote("2")
        file = repository.directory / "history.jsonl"
        whole = file.read_bytes()
        next_line = json.dumps(change_document(Change("w", "x", "clear", None, Release("9"))))
        for length in range(len(next_line)):
            file.write_bytes(whole + next_line[:length].encode())
            assert len(repository.history()) == 1
        file.write_bytes(whole + next_line[:-1].encode())
        repository.promote("3")
        lines = file.read_bytes().splitlines(keepends=True)
        assert lines[0] == whole
        assert len(lines) == 2
        assert [change.after.stable for change in repository.history()] == ["2", "3"]

    def test_a_last_line_that_lacks_only_its_end_counts(self, repository: Repository) -> None:
        repository.promote("2")
        file = repository.directory / "history.jsonl"
        file.write_bytes(file.read_bytes().rstrip(b"\n"))
        assert len(repository.history()) == 1
        repository.promote("3")
        assert [change.after.stable for change in repository.history()] == ["2", "3"]

    @pytest.mark.parametrize(
        "line",
        [
            "",
            "{}",
            "[]",
            "3",
            "null",
            "{",
            '{"when": 1, "who": "", "action": "", "why": "", "from": null, "to": {"stable": "1"}}',
            '{"when": "", "who": "", "action": "", "why": "", "from": null, "to": {}}',
            '{"when": "", "who": "", "action": "", "why": "", "from": 3, "to": {"stable": "1"}}',
            '{"when": "", "who": "", "action": "", "why": "", "from": null, "to": null}',
            "\N{SNOWMAN}",
        ],
    )
    def test_a_line_that_is_no_change_is_named(self, repository: Repository, line: str) -> None:
        repository.promote("2")
        file = repository.directory / "history.jsonl"
        file.write_text(file.read_text() + line + "\n" + file.read_text())
        with pytest.raises(BundleError, match=r"history\.jsonl: line 2 is not a change"):
            repository.history()
        repository.promote("3")  # to go on does not take the past

    def test_a_file_that_is_none_is_told_before_anything_is_changed(
        self, repository: Repository
    ) -> None:
        (repository.directory / "history.jsonl").mkdir()
        with pytest.raises(BundleError, match=r"history\.jsonl can't be read: Is a directory"):
            repository.history()
        with pytest.raises(BundleError, match=r"history\.jsonl can't be written: Is a directory"):
            repository.promote("2")
        assert repository.release() == Release("1")

    def test_what_a_message_holds_stays_on_one_line(self, repository: Repository) -> None:
        message = 'it\'s "better"\nthan 1\r\x85\u2028 \x00 ümlaut'
        repository.promote("2", message=message)
        assert (repository.directory / "history.jsonl").read_bytes().count(b"\n") == 1
        assert repository.history()[0].why == message

    def test_a_user_without_a_name_is_told_by_number(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("USER", "somebody-else")
        monkeypatch.setattr(histories.os, "getuid", lambda: 123_456_789)
        assert repository.promote("2").who == "123456789"

    def test_it_is_what_a_file_of_another_time_may_hold_more_of(
        self, repository: Repository
    ) -> None:
        change = repository.promote("2")
        document = change_document(change) | {"ticket": "OPS-7"}
        (repository.directory / "history.jsonl").write_text(json.dumps(document) + "\n")
        assert repository.history() == [change]


@pytest.mark.parametrize("failing", ["history", "release"])
def test_a_write_that_fails_leaves_release_and_history_as_they_were(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    repository.promote("2")
    before = state(repository)
    real = os.fsync
    calls = 0

    def fail(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == (1 if failing == "history" else 2):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    name = "history.jsonl" if failing == "history" else "release.toml"
    with pytest.raises(BundleError, match=f"{name} can't be written: No space left on device. The"):
        repository.promote("3")
    assert state(repository) == before
    repository.promote("3")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte, mounted for real."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a file system takes root")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("is_first", [True, False], ids=["first change", "later change"])
def test_a_disk_that_is_full_leaves_release_and_history_as_they_were(
    three_versions: Path, small_disk: Path, is_first: bool
) -> None:
    """A later change finds room for its line in the history's last page, and none for the file."""
    directory = Path(shutil.copytree(three_versions, small_disk / "example"))
    repository = Repository(directory)
    write_release(directory, Release("1"))
    if not is_first:
        repository.promote("2")
    before = state(repository)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"0" * 4096)
    with pytest.raises(BundleError, match="can't be written: No space left on device. The release"):
        repository.promote("3")
    assert state(repository) == before
    assert repository.release() == Release("1" if is_first else "2")
    assert list(directory.glob(".release.toml-*")) == []
    ballast.unlink()
    repository.promote("3")
    assert repository.history()[-1].after == Release("3")


def test_the_versions_are_told_with_their_state_and_what_is_wrong_with_them(
    repository: Repository,
) -> None:
    (repository.directory / "3" / "manifest.json").write_text("{")
    release = Release("1", "2", "canary", 0.1)
    one, two, three = repository.summaries(release)
    nine = repository.summaries(Release("9"))[-1]
    assert (one.version, one.state, one.traffic, one.problem) == ("1", "stable", None, "")
    assert (two.version, two.state, two.traffic) == ("2", "canary", 0.1)
    files = list((repository.directory / "1").iterdir())
    assert one.bytes == sum(file.stat().st_size for file in files)
    assert one.created_at is not None
    assert one.training["cv"]["roc_auc"]["mean"] == 0.81
    assert (three.version, three.state, three.bytes) == ("3", "", None)
    assert "is not JSON" in three.problem
    assert (nine.version, nine.state) == ("9", "stable")
    assert "manifest.json is missing" in nine.problem
    assert repository.summaries(Release("1", "2", "shadow"))[1].state == "shadow"
