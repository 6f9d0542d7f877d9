"""``lantern serve``: what it refuses before Gunicorn starts, and what its arguments win over."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import BUNDLE, ROOT

Run = Callable[..., "subprocess.CompletedProcess[str]"]
EXAMPLE = ROOT / "models" / "campaign-response"


@pytest.fixture
def lantern(tmp_path: Path) -> Run:
    """Run the command in an empty directory: ``lantern("serve", LANTERN_SERVER__PORT="1")``."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("LANTERN_")}
        return subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            cwd=tmp_path,
            env=clean | {"PYTHONPATH": str(ROOT)} | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


def other_version(path: Path) -> None:
    path.mkdir()
    shutil.copytree(EXAMPLE / "1", path / "2")


def release_of_none(path: Path) -> None:
    path.mkdir()
    (path / "1").symlink_to(BUNDLE)
    (path / "release.toml").write_text('stable = "7"\n')


def without_network(path: Path) -> None:
    shutil.copytree(BUNDLE, path / "1", ignore=shutil.ignore_patterns("model.*"))


def no_number(path: Path) -> None:
    path.mkdir()
    (path / "spring").symlink_to(BUNDLE)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_number, "name the directory of one as the model, such as "),
        (without_network, "/1/model.onnx is missing"),
        (os.mkfifo, "is neither a regular file nor a directory."),
        (Path.mkdir, "neither it nor a directory in it has a manifest.json or model.pt"),
        (lambda path: path.write_text("hello"), "can't be read as a checkpoint: it doesn't begin"),
        (lambda path: path.write_text("<html>"), "is a web page, not a model"),
        (lambda path: path.symlink_to(EXAMPLE.parent), "choose one of them: "),
        (other_version, "should be version '2', but its manifest says '1'"),
        (release_of_none, "has no version '7'; it has: 1."),
    ],
)
@pytest.mark.isolated
def test_what_is_no_model_ends_at_once_in_a_sentence(
    lantern: Run, tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    make(tmp_path / "it")
    ran = lantern("serve", "it")
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: ")
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ran.stdout == ""


def test_what_a_version_that_is_held_back_lacks_is_no_obstacle(
    lantern: Run, tmp_path: Path
) -> None:
    for version in ("1", "2"):
        shutil.copytree(EXAMPLE / "1", tmp_path / "it" / version)
    manifest = tmp_path / "it" / "2" / "manifest.json"
    document = json.loads(manifest.read_text())
    document["version"] = "2"
    document["features"][0]["name"] = "renamed"
    manifest.write_text(json.dumps(document))
    (manifest.parent / "model.onnx").unlink()
    (tmp_path / "taken").write_text("")
    ran = lantern(
        *("serve", "it"), LANTERN_MODEL__RUNTIME="onnx", GUNICORN_CMD_ARGS="--bind unix:taken"
    )
    assert "can't listen on unix:taken" in ran.stderr  # as far as a model that can be served comes


@pytest.mark.parametrize("address", ["tcp", "file"])
def test_an_address_that_is_taken_is_told_once(lantern: Run, tmp_path: Path, address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        if address == "file":
            (tmp_path / "socket").write_text("")
            bind = "unix:socket"
        ran = lantern("serve", str(EXAMPLE), "--workers", "1", GUNICORN_CMD_ARGS=f"--bind {bind}")
    assert ran.returncode == 1
    assert ran.stderr.count(f"Lantern can't start. It can't listen on {bind}: ") == 1
    assert "Retrying" not in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stderr.count("\n") == 2  # beside that Gunicorn starts


def test_a_model_on_the_command_line_wins_over_all_that_settings_name(
    lantern: Run, tmp_path: Path
) -> None:
    """Told by what comes after the settings: there is no such descriptor to listen on."""
    file = tmp_path / "mine.toml"
    file.write_text('[models]\na = "a"\nb = "b"\n')
    variables = {
        "LANTERN_CONFIG": str(file),
        "LANTERN_MODEL__VERSION": "9",
        "LANTERN_MODEL__NAME": "other",
        "GUNICORN_CMD_ARGS": "--bind fd://999",
    }
    ran = lantern("serve", str(EXAMPLE), **variables)
    assert (ran.returncode, "It can't listen on fd://999: Bad file" in ran.stderr) == (1, True)
    ran = lantern("serve", **variables)
    assert "model.name (LANTERN_MODEL__NAME) is for a single model" in ran.stderr


def test_the_version_that_is_released_is_checked_and_not_the_highest(
    lantern: Run, tmp_path: Path
) -> None:
    shutil.copytree(BUNDLE, tmp_path / "it" / "1")
    released = tmp_path / "it" / "spring"
    (tmp_path / "it" / "1").rename(released)
    manifest = json.loads((released / "manifest.json").read_text())
    manifest["version"] = released.name
    del manifest["files"]["model.pt"]  # which has the version in it
    (released / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "it" / "release.toml").write_text('stable = "spring"\n')
    ran = lantern("serve", "it", GUNICORN_CMD_ARGS="--bind fd://999")
    assert "It can't listen on fd://999: Bad file" in ran.stderr


@pytest.mark.parametrize("workers", ["many", "²", "1.5"])
def test_a_number_of_workers_that_gunicorn_can_not_read_is_told_in_a_sentence(
    lantern: Run, workers: str
) -> None:
    ran = lantern("config", WEB_CONCURRENCY=workers)
    assert ran.stderr == f"Error: WEB_CONCURRENCY must be a whole number, not {workers!r}.\n"
    assert ran.returncode == 1


def test_an_empty_number_of_workers_is_none(lantern: Run) -> None:
    assert lantern("config", WEB_CONCURRENCY="").returncode == 0


def test_what_is_wrong_with_an_argument_is_told_by_its_name(lantern: Run) -> None:
    ran = lantern("serve", "--host", "")
    assert ran.returncode == 1
    assert "Setting server.host = '' (--host)" in ran.stderr


def run_from_deleted(
    tmp_path: Path, program: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in a directory that it deletes."""
    here = tmp_path / "here"
    here.mkdir()
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=here,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_reload_in_a_directory_that_was_deleted_does_not_end_the_master(tmp_path: Path) -> None:
    program = (
        "import os; from app.server.application import LanternServer; "
        "server = LanternServer(None); os.rmdir(os.getcwd()); server.reload()"
    )
    ran = run_from_deleted(tmp_path, program)
    assert ran.returncode == 0
    assert ran.stderr.startswith("The configuration isn't read again: the current directory can't")


def test_a_directory_that_was_deleted_is_told_in_a_sentence(tmp_path: Path) -> None:
    program = "import os, sys; os.rmdir(os.getcwd()); from app.__main__ import main; main()"
    ran = run_from_deleted(tmp_path, program, "config")
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: The current directory can't be used: No such file")
    assert ran.stderr.count("\n") == 1
