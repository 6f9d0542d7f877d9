"""Each example packs a model of another library, serves it, and gets the library's own answers."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers import read_pins
from tests.conftest import ROOT

DIRECTORY = ROOT / "examples"
EXAMPLES = sorted(path for path in DIRECTORY.glob("*.py") if path.stem != "serving")
ENVIRONMENT = DIRECTORY / ".venv" / "bin" / "python"
"""Has what the examples need, and Lantern installed; made by ``make test-examples``."""
QUICK = ("torch_two_inputs", "image_network")
"""What is run by ``make test``, too: they need nothing that it doesn't have."""


def run(python: Path, example: Path, directory: Path, **variables: str) -> str:
    """Run an example in an empty ``directory``, and return what it printed."""
    environ = {name: value for name, value in os.environ.items() if "LANTERN_" not in name}
    environ["LANTERN_LIMITS__QUEUE_BUDGET_MS"] = "60000"  # nobody is refused for being slow
    environ["OMP_NUM_THREADS"] = "1"  # several run at a time
    ran = subprocess.run(
        [python, example],
        cwd=directory,
        env=environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


@pytest.mark.examples
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_gets_the_answers_of_its_library(example: Path, tmp_path: Path) -> None:
    printed = run(ENVIRONMENT, example, tmp_path)
    assert "$ lantern serve models/" in printed
    assert not printed.splitlines()[-1].startswith("$")  # the answer is shown


@pytest.mark.parametrize("name", QUICK)
def test_an_example_of_torch_runs_from_the_checkout(name: str, tmp_path: Path) -> None:
    run(
        Path(sys.executable),
        DIRECTORY / f"{name}.py",
        tmp_path,
        PYTHONPATH=str(ROOT / "editable"),
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_fits_a_screen_and_checks_the_answers(example: Path) -> None:
    text = example.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 66
    called = {
        ast.unparse(each.func) for each in ast.walk(ast.parse(text)) if type(each) is ast.Call
    }
    assert {"lantern", "serve", "np.testing.assert_allclose"} <= called


def test_the_page_of_the_examples_has_each() -> None:
    page = (DIRECTORY / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in EXAMPLES} == {
        line.split("](")[1].split(")")[0] for line in page.splitlines() if line.startswith("| [")
    }


def test_the_environment_of_the_examples_has_the_versions_of_the_tests() -> None:
    pins = read_pins(DIRECTORY / "requirements.txt")
    tested = read_pins(ROOT / "requirements-dev.txt")
    assert {name: pins[name] for name in pins.keys() & tested.keys()} == {
        name: tested[name] for name in pins.keys() & tested.keys()
    }
    assert {"torch", "onnxruntime", "onnx", "onnxscript", "scikit-learn"} <= pins.keys()


def commands(program: str) -> Iterator[list[str]]:
    """Yield the words of each command of Lantern that a program runs."""
    for call in ast.walk(ast.parse(program)):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("lantern", "serve"):
            words = shlex.split(ast.literal_eval(call.args[0]))
            is_serve = ast.unparse(call.func) == "serve"
            yield ["serve", *words] if is_serve else [word for word in words if word != "--replace"]


WORKED = (ROOT / "docs" / "models.md").read_text().partition("\n## Worked examples\n")[2]
WORKED_EXAMPLES = WORKED.partition("\n## ")[0].split("\n### ")[1:]


@pytest.mark.parametrize("text", WORKED_EXAMPLES, ids=lambda text: text.partition("\n")[0])
def test_a_worked_example_of_the_page_is_part_of_its_program(text: str) -> None:
    [name] = re.findall(r"\(\.\./examples/(\w+\.py)\)", text)
    program = (DIRECTORY / name).read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    assert {language for language, _ in blocks} >= {"python", "sh"}
    for language, block in blocks:
        if language == "sh":
            lines = block.replace("\\\n", "").splitlines()
            assert [shlex.split(line)[1:] for line in lines] == list(commands(program))
        else:
            assert f"\n{block}" in program
