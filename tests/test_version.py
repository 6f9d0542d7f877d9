"""What messages advise to type works where they say it: here, in a checkout.

tests/deploy/test_wheel.py types the same of an installed package.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from app import version
from benchmarks.peers import read_pins
from tests.conftest import ROOT


@pytest.mark.parametrize("command", ["serve", "model pack", "key create", "config"])
def test_the_command_that_messages_name_runs_in_a_checkout(command: str) -> None:
    ran = subprocess.run(
        [*shlex.split(version.COMMAND), *command.split(), "--help"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.startswith(f"Usage: {version.COMMAND} {command} ")


@pytest.mark.parametrize(
    ("advice", "packages"),
    [(version.FOR_TORCH, {"torch"}), (version.FOR_PACKING, {"torch", "onnx", "onnxscript"})],
)
def test_what_messages_say_to_install_has_what_is_missing(advice: str, packages: set[str]) -> None:
    option, file = advice.split()
    assert option == "-r"
    assert packages <= read_pins(ROOT / file).keys()
