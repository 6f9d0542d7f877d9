"""The page docs/coming-from-torchserve.md: its walk from an archive to an answer, and its names."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.walks import environment, run, serving

PAGE = (ROOT / "docs" / "coming-from-torchserve.md").read_text(encoding="utf-8")
CASE = ROOT / "tests" / "packing" / "cases" / "mar_digits"
PORT = "8080"


def walk() -> tuple[list[str], Any]:
    """Return the commands of the walk, and the answer that it shows."""
    section = PAGE.partition("## From an archive to an answer\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)
    commands = [line for kind, text in blocks if kind == "sh" for line in text.splitlines()]
    [shown] = [json.loads(text) for kind, text in blocks if kind == "json"]
    return commands, shown


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
    arguments = shlex.split(commands[at])[1:]
    assert arguments[-2:] == ["--port", PORT]
    with serving(arguments[:-2], tmp_path, environ) as port:
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
