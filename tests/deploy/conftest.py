"""What the tests of the ways to deploy share: the Dockerfile and the locks, read."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import pytest

from app.settings import FILE_VARIABLE, Settings, load_settings
from tests.conftest import ROOT

LOCKS = ROOT / "locks"


def read_lock(name: str) -> dict[str, tuple[str, list[str]]]:
    """Return the version and the hashes of each package of a lock."""
    text = re.sub(r" *#.*", "", (LOCKS / name).read_text())
    lines = re.sub(r"\\\n", " ", text).split("\n")
    found = {}
    for line in filter(str.strip, lines):
        package, *hashes = line.split()
        assert package.count("==") == 1, line
        assert hashes, f"{package} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", part) for part in hashes), line
        wanted, version = package.split("==")
        found[wanted] = version, hashes
    return found


class Instruction(NamedTuple):
    name: str
    arguments: str


def read_stages() -> dict[str, list[Instruction]]:
    """Return the instructions of each stage of the Dockerfile, ``FROM`` first, each on one line."""
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


def read_image(target: str = "") -> list[Instruction]:
    """Return the instructions that make the image ``target``, by default the last."""
    stages = read_stages()
    name = target or list(stages)[-1]
    instructions: list[Instruction] = []
    while name in stages:
        base, *own = stages[name]
        instructions = own + instructions
        name = base.arguments.split()[0]
    return instructions


def arguments(dockerfile: list[Instruction], name: str) -> list[str]:
    return [instruction.arguments for instruction in dockerfile if instruction.name == name]


def read_environ(dockerfile: list[Instruction]) -> dict[str, str]:
    """Return the variables that an image sets."""
    words = [word for line in arguments(dockerfile, "ENV") for word in shlex.split(line)]
    return dict(word.split("=", 1) for word in words)


def settings_in_image(environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """Load the settings as in a container that is given ``environ`` beside the image's variables.

    That refuses a key or a variable that is no setting. ``file`` is what is mounted where
    LANTERN_CONFIG says, if that is no file of the image.
    """
    environ = read_environ(read_image()) | environ
    return load_settings(environ | {FILE_VARIABLE: str(file or ROOT / environ[FILE_VARIABLE])})


@pytest.fixture(scope="session")
def stages() -> dict[str, list[Instruction]]:
    return read_stages()


@pytest.fixture(scope="session")
def dockerfile() -> list[Instruction]:
    return read_image()


@pytest.fixture(scope="session")
def image_environ(dockerfile: list[Instruction]) -> dict[str, str]:
    return read_environ(dockerfile)


@pytest.fixture(scope="session")
def python_without_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the packages of the lock for ONNX models, and no others."""
    return make_serving_environment(tmp_path_factory.mktemp("without-torch") / "venv")


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the wheel and what it requires: neither torch nor onnx, nor this checkout."""
    python = make_serving_environment(tmp_path_factory.mktemp("installed") / "venv")
    install(build_wheel(ROOT, tmp_path_factory.mktemp("wheel")), python)
    return python


def make_serving_environment(venv: Path) -> Path:
    """Make an environment of the packages in the lock for ONNX models; return its Python."""
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


def build_wheel(checkout: Path, out: Path, target: str = "wheel") -> Path:
    """Build the wheel into the empty directory ``out``, as `make wheel` and the image do."""
    command = ["-m", "hatchling", "build", "--target", target, "--directory", str(out)]
    subprocess.run([sys.executable, *command], cwd=checkout, check=True, capture_output=True)
    [built] = out.iterdir()
    return built


def install(wheel: Path, python: Path) -> None:
    """Install a wheel without its requirements in the environment of ``python``."""
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    command = [*pip, "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
