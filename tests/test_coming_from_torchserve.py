"""The page docs/coming-from-torchserve.md: its walk from an archive to an answer, and its names."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from benchmarks.servers import free_port
from tests.conftest import ROOT, without_coverage
from tests.integration.conftest import wait_for

PAGE = (ROOT / "docs" / "coming-from-torchserve.md").read_text(encoding="utf-8")
CASE = ROOT / "tests" / "packing" / "cases" / "mar_digits"
PORT = "8080"
LONG = 120
"""Seconds that nothing here takes unless something is wrong."""


def walk() -> tuple[list[str], Any]:
    """Return the commands of the walk, and the answer that it shows."""
    section = PAGE.partition("## From an archive to an answer\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)
    commands = [line for kind, text in blocks if kind == "sh" for line in text.splitlines()]
    [shown] = [json.loads(text) for kind, text in blocks if kind == "json"]
    return commands, shown


def environment() -> dict[str, str]:
    """Return what the commands see: nothing of the settings of whoever runs the tests."""
    kept = {k: v for k, v in without_coverage().items() if not k.startswith("LANTERN_")}
    return kept | {"PYTHONPATH": str(ROOT), "LANTERN_SERVER__WORKERS": "1"}


@contextmanager
def serving(arguments: list[str], directory: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """Run ``lantern serve`` on a free port while the rest of the walk runs; yield the port."""
    port = str(free_port())
    arguments = [port if each == PORT else each for each in arguments]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", *arguments],
            cwd=directory,
            env=environ,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: process.poll() is not None or is_up(port))
        assert process.poll() is None, (directory / "log").read_text()
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(LONG)


def is_up(port: str) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=LONG).ok
    except requests.RequestException:
        return False


def run(command: list[str], directory: Path, environ: Mapping[str, str]) -> str:
    ran = subprocess.run(
        command,
        cwd=directory,
        env=environ,
        capture_output=True,
        encoding="utf-8",
        timeout=LONG,
        check=False,
    )
    assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
    return ran.stdout


def test_every_setting_that_is_named_exists() -> None:
    defaults = tomllib.loads((ROOT / "config" / "default.toml").read_text(encoding="utf-8"))
    named = re.findall(r"`(server|model|limits|access|release|cache|logging)\.(\w+)`", PAGE)
    assert len(named) > 10
    assert [(section, key) for section, key in named if key not in defaults[section]] == []


def test_every_metric_that_is_named_exists() -> None:
    source = "".join(path.read_text() for path in (ROOT / "app" / "telemetry").glob("*.py"))
    named = set(re.findall(r"`(lantern_\w+)`", PAGE)) - {"lantern_serving"}
    assert len(named) > 4
    assert [name for name in named if f'"{name}"' not in source] == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_an_archive_answers_after_the_six_commands_of_the_page(tmp_path: Path) -> None:
    for name in ("digits.mar", "digit0.png"):
        shutil.copy(CASE / name, tmp_path)
    commands, shown = walk()
    assert len(commands) == 6
    environ = environment()
    [at] = [index for index, line in enumerate(commands) if line.startswith("lantern serve")]
    for line in commands[:at]:
        if line.startswith("export "):
            environ |= dict([line.removeprefix("export ").split("=", 1)])
        else:
            run([sys.executable, "-m", "app", *shlex.split(line)[1:]], tmp_path, environ)
    with serving(shlex.split(commands[at])[1:], tmp_path, environ) as port:
        answers = []
        for line in commands[at + 1 :]:
            assert line.startswith("curl ")
            curl = shlex.split(line.replace(f":{PORT}/", f":{port}/"))
            answers.append(json.loads(run([*curl, "--silent", "--fail"], tmp_path, environ)))
    assert answers[0] == {"status": "Healthy"}
    assert answers[1] == pytest.approx(shown, abs=1e-6)
    [theirs, *_] = json.loads((CASE / "torchserve_answers.json").read_text(encoding="utf-8"))
    assert answers[1] == pytest.approx(theirs, abs=1e-6)
    assert list(answers[1]) == list(theirs)
