"""The README's programs do what it says."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flask import Flask

from app.model.loading import ModelSource
from app.model.service import ModelService
from app.settings import load_settings
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


SECTION = README.partition("## Bring your own model")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"```(python|sh)\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty directory in which "Bring your own model" was followed, all but the serving."""
    directory = tmp_path_factory.mktemp("readme")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    programs = 0
    for language, text in BLOCKS:
        if language == "python":
            programs += 1
            subprocess.run([sys.executable, "-c", text], cwd=directory, env=environ, check=True)
            continue
        # Elsewhere than in the root of the repository, which a test shall not change.
        commands = text.replace(".venv/bin/flask", f"{sys.executable} -m flask")
        commands = commands.replace("=models/", f"={directory}/models/")
        lines = [line for line in commands.replace("\\\n", "").splitlines() if " flask " in line]
        for line in lines:
            subprocess.run(line, shell=True, cwd=directory, env=environ, check=True)
    assert programs == 3
    return directory


def served(directory: Path) -> list[dict[str, str]]:
    """The settings of each command of that section that serves a model."""
    commands = [text for language, text in BLOCKS if language == "sh" and "make serve" in text]
    found = [dict(re.findall(r"(LANTERN_\w+)=(\S+)", command)) for command in commands]
    for variables in found:
        path = variables["LANTERN_MODEL__PATH"].replace("$PWD/", "")
        variables["LANTERN_MODEL__PATH"] = str(directory / path)
    return found


@pytest.mark.parametrize(
    ("which", "classes"),
    [(0, ["malignant", "benign"]), (1, ["stays", "leaves"]), (2, ["stays", "leaves"])],
)
def test_a_model_of_ones_own_serves_after_following_the_readme(
    followed: Path, which: int, classes: list[str]
) -> None:
    settings = load_settings(served(followed)[which]).model
    service = ModelService(
        ModelSource(
            settings.path,
            feature_names=settings.feature_names,
            class_names=settings.class_names,
        )
    )
    assert service.load(), service.fault
    info = service.info()
    assert info["classes"] == classes
    row = np.ones((1, info["num_features"]), dtype=np.float32)
    assert sum(service.predict(row).probabilities) == pytest.approx(1, abs=1e-6)


def test_the_tumours_of_the_readme_are_told_apart_over_http(
    followed: Path, make_app: Callable[..., Flask]
) -> None:
    client = make_app(MODEL__PATH=str(followed / "models" / "tumours")).test_client()
    with (followed / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = [("malignant", "benign")[int(row.pop("diagnosis"))] for row in rows]
    samples = [{name: float(value) for name, value in row.items()} for row in rows]
    answer = client.post("/predict/batch", json={"samples": samples}).get_json()
    right = [
        got["label"] == label for got, label in zip(answer["predictions"], labels, strict=True)
    ]
    assert sum(right) / len(right) > 0.95
    assert (followed / "models" / "tumours" / "release.toml").is_file()


def test_every_file_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) >= 5
    assert [link for link in links if not (ROOT / link).exists()] == []
