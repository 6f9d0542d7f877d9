"""What the tests of the ways to deploy share: the Dockerfile, read; a Python without torch."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT
from tests.deploy.test_locks import read_lock


class Instruction(NamedTuple):
    name: str
    arguments: str


def read_stages() -> dict[str, list[Instruction]]:
    """Give the instructions of each stage of the Dockerfile, ``FROM`` first, each on one line."""
    lines = [
        line
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    stages: dict[str, list[Instruction]] = {}
    for line in joined.splitlines():
        instruction = Instruction(*line.split(maxsplit=1))
        if instruction.name == "FROM":
            stages[instruction.arguments.split(" AS ")[1]] = []
        list(stages.values())[-1].append(instruction)
    return stages


@pytest.fixture(scope="session")
def stages() -> dict[str, list[Instruction]]:
    return read_stages()


@pytest.fixture(scope="session")
def dockerfile(stages: dict[str, list[Instruction]]) -> list[Instruction]:
    """The instructions that make the image which the Dockerfile builds when no target is named."""
    *_, name = stages
    instructions: list[Instruction] = []
    while name in stages:
        base, *own = stages[name]
        instructions = own + instructions
        name = base.arguments.split()[0]
    return instructions


def arguments(dockerfile: list[Instruction], name: str) -> list[str]:
    return [instruction.arguments for instruction in dockerfile if instruction.name == name]


@pytest.fixture(scope="session")
def image_environ(dockerfile: list[Instruction]) -> dict[str, str]:
    """The variables that the image sets."""
    words = [word for line in arguments(dockerfile, "ENV") for word in shlex.split(line)]
    return dict(word.split("=", 1) for word in words)


@pytest.fixture(scope="session")
def python_without_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the packages of the lock for ONNX models, and no others."""
    venv = tmp_path_factory.mktemp("without-torch") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    [site] = venv.glob("lib/python*/site-packages")
    for package in read_lock("onnx.txt"):
        try:
            found = distribution(package)
        except PackageNotFoundError:
            continue  # it is for another Python 3.11; what is missed here fails to be imported
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))).resolve())
    return venv / "bin" / "python"
