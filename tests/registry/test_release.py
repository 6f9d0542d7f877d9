"""The release file: read strictly, written whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.documents import files
from app.model.errors import BundleError
from app.model.manifest import VERSION
from app.registry.release import Release, read_release, release_in_force, write_release
from tests.conftest import ROOT, without_coverage

VERSIONS = st.from_regex(VERSION, fullmatch=True)
RELEASES = st.one_of(
    st.builds(Release, VERSIONS),
    st.builds(Release, VERSIONS, VERSIONS, st.just("shadow")),
    st.builds(Release, VERSIONS, VERSIONS, st.just("canary"), st.floats(0, 1)),
).filter(lambda release: release.stable != release.candidate)


def write(directory: Path, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    (directory / "release.toml").write_bytes(data)


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ('stable = "3"', Release("3")),
        ('stable = "spring-2.1"\n', Release("spring-2.1")),
        ('stable="3"\ncandidate="4"\nmode="shadow"', Release("3", "4", "shadow")),
        (
            'stable = "3"\ncandidate = "4"\nmode = "canary"\ntraffic = 0.05',
            Release("3", "4", "canary", 0.05),
        ),
        (
            'traffic = 1\nmode = "canary"\ncandidate = "4"\nstable = "3"',
            Release("3", "4", "canary", 1.0),
        ),
    ],
)
def test_a_release_is_read_as_it_is_written(tmp_path: Path, text: str, release: Release) -> None:
    write(tmp_path, text)
    assert read_release(tmp_path) == release
    assert release.versions == (("3", "4") if release.candidate else (release.stable,))


CANARY = 'stable = "3"\ncandidate = "4"\nmode = "canary"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "stable is missing"),
        ('candidate = "4"\nmode = "shadow"', "stable is missing"),
        ("stable = 3", "stable must be a string of at most 64"),
        ('stable = ""', "stable must be a string of at most 64"),
        ('stable = "../4"', "stable must be a string of at most 64"),
        ('stable = ".4"', "stable must be a string of at most 64"),
        (f'stable = "{"4" * 65}"', "stable must be a string of at most 64"),
        ('stable = ["3"]', "stable must be a string of at most 64"),
        ('stable = "3"\nstabel = "4"', "'stabel' is not a key of a release; did you mean"),
        ('[stable]\nversion = "3"', "stable must be a string of at most 64"),
        ('stable = "3"\nmode = "shadow"', "mode is set, but there is no candidate"),
        ('stable = "3"\ntraffic = 0.1', "traffic is set, but there is no candidate"),
        ('stable = "3"\ncandidate = "4"', 'mode must be "canary" or "shadow"'),
        ('stable = "3"\ncandidate = "4"\nmode = "Canary"', 'mode must be "canary" or "shadow"'),
        ('stable = "3"\ncandidate = "4"\nmode = ["canary"]', 'mode must be "canary" or "shadow"'),
        ('stable = "3"\ncandidate = "3"\nmode = "shadow"', "are the same version"),
        (
            'stable = "3"\ncandidate = 4\nmode = "shadow"',
            "candidate must be a string of",
        ),
        (
            'stable = "3"\ncandidate = "4"\nmode = "shadow"\ntraffic = 0.1',
            "traffic is only for a canary",
        ),
        (CANARY, "traffic is missing"),
        (CANARY + "traffic = 1.01", "traffic must be a number from 0 to 1"),
        (CANARY + "traffic = -0.1", "traffic must be a number from 0 to 1"),
        (CANARY + "traffic = nan", "traffic must be a number from 0 to 1"),
        (CANARY + "traffic = true", "traffic must be a number from 0 to 1"),
        (CANARY + 'traffic = "0.1"', "traffic must be a number from 0 to 1"),
        (CANARY + "traffic = 10 %", "is not TOML"),
        ('stable = "3', "is not TOML"),
        ('stable = "3"\nstable = "4"', "is not TOML"),
        ("traffic = " + "1" * 5000, "is not TOML"),
        ("stable = " + "[" * 20_000, "is not TOML"),
        (b'stable = "\xff"', "is not UTF-8"),
        (b"\0", "is not TOML"),
    ],
)
def test_a_release_of_a_wrong_form_is_refused_with_the_key(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    write(tmp_path, text)
    with pytest.raises(BundleError, match=r"release\.toml") as error:
        read_release(tmp_path)
    assert said in str(error.value)


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode())))
def test_whatever_stands_in_the_file_only_our_error_is_raised(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), content)
        with pytest.raises(BundleError):
            read_release(Path(name))


@given(RELEASES, st.data())
def test_a_file_cut_short_is_never_taken_for_a_whole_one(
    release: Release, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_release(directory, release)
        whole = (directory / "release.toml").read_bytes()
        write(directory, whole[: data.draw(st.integers(0, len(whole) - 2))])
        with pytest.raises(BundleError):
            read_release(directory)


@given(RELEASES)
def test_what_is_written_is_read_again(release: Release) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_release(directory, Release("0"))
        write_release(directory, release)
        assert read_release(directory) == release
        assert [path.name for path in directory.iterdir()] == ["release.toml"]


@pytest.mark.parametrize(
    "release",
    [
        Release("../3"),
        Release('3"\ntraffic = "'),
        Release("3", "3", "shadow"),
        Release("3", "4"),
        Release("3", "4", "canary", 2.0),
        Release("3", "4", "canary", float("nan")),
    ],
)
def test_nothing_is_written_that_could_not_be_read(tmp_path: Path, release: Release) -> None:
    write_release(tmp_path, Release("1"))
    with pytest.raises(BundleError):
        write_release(tmp_path, release)
    assert read_release(tmp_path) == Release("1")


def test_without_a_file_there_is_no_release_and_the_highest_version_serves(bundle: Path) -> None:
    for version in ("9", "10", "11-old"):
        shutil.copytree(bundle, bundle.parent / version)
    assert read_release(bundle.parent) is None
    assert release_in_force(bundle.parent) == Release("10")
    write_release(bundle.parent, Release("9"))
    assert release_in_force(bundle.parent) == Release("9")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused_not_waited_for(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "release.toml")
    with pytest.raises(BundleError, match="not a regular file"):
        read_release(tmp_path)


def test_everyone_may_read_what_was_written(tmp_path: Path) -> None:
    """The server may run as another user than the one who promotes."""
    write_release(tmp_path, Release("1"))
    assert (tmp_path / "release.toml").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("failing", ["mkstemp", "fdopen", "fchmod", "fsync", "rename"])
def test_a_step_that_fails_leaves_the_old_release_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    write_release(tmp_path, Release("1"))

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place: Any = {"mkstemp": tempfile, "rename": Path}.get(failing, os)
    with monkeypatch.context() as patched:
        patched.setattr(place, failing, fail)
        with pytest.raises(BundleError, match="No space left on device. The release is unchanged"):
            write_release(tmp_path, Release("2"))
    assert read_release(tmp_path) == Release("1")
    assert [path.name for path in tmp_path.iterdir()] == ["release.toml"]


def test_a_release_that_is_in_force_is_told_so_though_the_directory_is_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, "sync_directory", fail)
    write_release(tmp_path, Release("2"))
    assert read_release(tmp_path) == Release("2")


def test_a_file_system_that_takes_no_more_leaves_the_old_release(tmp_path: Path) -> None:
    """For real: the process may write no byte to a file."""
    write_release(tmp_path, Release("1"))
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from app.registry.release import Release, write_release\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "write_release(Path(sys.argv[1]), Release('2'))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "can't be written: File too large. The release is unchanged." in ran.stderr
    assert read_release(tmp_path) == Release("1")
    assert [path.name for path in tmp_path.iterdir()] == ["release.toml"]


@pytest.mark.parametrize("what", ["write_release", "promote"])
def test_killed_at_any_step_it_leaves_the_old_release_or_the_new_one(
    tmp_path: Path, what: str
) -> None:
    """See ``killing.py``, which also sees that the history agrees and the next change is made."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.registry.killing", what, tmp_path],
        cwd=ROOT,
        env=without_coverage(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["old"] > 100
    assert told["new"] > 3
    assert told["litter"] > 3  # it was killed while the new file lay beside the old
