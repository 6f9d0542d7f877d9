"""The README's programs do what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.model.loading import ModelSource
from app.model.service import ModelService
from app.settings import load_settings
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the programs of "Bring your own model" were run, in their order."""
    directory = tmp_path_factory.mktemp("readme")
    section = README.partition("## Bring your own model")[2].partition("\n## ")[0]
    programs = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
        )
    return directory


def served(directory: Path) -> list[dict[str, str]]:
    """The settings of each command of that section that serves a model."""
    section = README.partition("## Bring your own model")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    found = [dict(re.findall(r"(LANTERN_\w+)=(\S+)", block)) for block in blocks]
    for variables in found:
        path = variables["LANTERN_MODEL__PATH"].replace("$PWD/", "")
        variables["LANTERN_MODEL__PATH"] = str(directory / path)
    return found


@pytest.mark.parametrize("which", [0, 1])
def test_a_model_of_ones_own_serves_after_following_the_readme(followed: Path, which: int) -> None:
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
    assert info["classes"] == ["stays", "leaves"]
    row = np.ones((1, info["num_features"]), dtype=np.float32)
    assert sum(service.predict(row).probabilities) == pytest.approx(1, abs=1e-6)


def test_every_file_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) >= 5
    assert [link for link in links if not (ROOT / link).exists()] == []
