"""The locks that the image installs from: complete, hashed, and of the versions that are pinned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.peers import read_pins
from tests.conftest import ROOT
from tests.deploy.conftest import LOCKS, read_lock

REQUIREMENTS = {
    "build.txt": "requirements-build.txt",
    "wheel.txt": "requirements-wheel.txt",
    "onnx.txt": "requirements-onnx.txt",
    "torch-cpu.txt": "requirements.txt",
    "torch-cuda.txt": "requirements.txt",
}


def pins(path: Path) -> dict[str, str]:
    return {
        re.sub("[-_.]+", "-", name).lower(): version for name, version in read_pins(path).items()
    }


def test_every_lock_is_made_of_requirements() -> None:
    assert {path.name for path in LOCKS.iterdir()} == REQUIREMENTS.keys()


@pytest.mark.parametrize("lock", REQUIREMENTS)
def test_a_lock_has_every_pinned_requirement_at_its_version(lock: str) -> None:
    locked = {name: version for name, (version, _) in read_lock(lock).items()}
    if lock == "torch-cpu.txt":
        build = locked["torch"].partition("+")
        assert build[1:] == ("+", "cpu"), "PyTorch's index of builds for the CPU wasn't asked"
        locked["torch"] = build[0]
    pinned = pins(ROOT / REQUIREMENTS[lock])
    assert {name: locked.get(name) for name in pinned} == pinned, "run `make lock`"


def test_onnx_models_are_served_without_torch_and_what_it_brings() -> None:
    onnx, torch = read_lock("onnx.txt"), read_lock("torch-cpu.txt")
    assert onnx.items() <= torch.items()
    assert {"torch", "sympy", "networkx"} <= torch.keys() - onnx.keys()


def test_the_lock_for_the_cpu_has_nothing_of_cuda() -> None:
    def cuda(lock: str) -> list[str]:
        return [name for name in read_lock(lock) if name.startswith(("nvidia-", "cuda-"))]

    assert not cuda("torch-cpu.txt")
    assert cuda("torch-cuda.txt")


def test_no_lock_says_where_packages_were_found() -> None:
    """Whoever installs has their own places, and pip's configuration for them."""
    for lock in REQUIREMENTS:
        text = (LOCKS / lock).read_text()
        assert not re.search(r"://|--(extra-)?index-url|--find-links|@ file", text), lock
