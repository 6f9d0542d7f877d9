"""The arrows of the design run one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

MODULES = sorted((ROOT / "app").rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Give the full names of what a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_it_may_know(path: Path) -> None:
    names = set(imports(path))
    place = path.relative_to(ROOT).parts
    assert not [name for name in names if within(name, "training", "benchmarks", "trials", "tests")]
    if place[:2] == ("app", "model"):
        strange = [n for n in names if within(n, "flask", "werkzeug", "marshmallow", "gunicorn")]
        assert not strange
        assert not [n for n in names if within(n, "app") and not within(n, "app.model")]
    if place[:2] == ("app", "worker"):
        assert not [n for n in names if within(n, "app") and not within(n, "app.worker")]
    if place[:2] == ("app", "http"):
        assert not [n for n in names if within(n, "app.model", "onnxruntime", "torch")]
    if place[:2] == ("app", "protocols"):
        assert not [n for n in names if within(n, "flask", "werkzeug", "gunicorn")]
        assert not [
            n for n in names if within(n, "app") and not within(n, "app.model", "app.protocols")
        ]
    if place[:2] != ("app", "blueprints") and place != ("app", "__init__.py"):
        assert not [name for name in names if within(name, "app.blueprints")]
    if place == ("app", "client.py"):
        allowed = {"requests", "urllib3", *sys.stdlib_module_names}
        assert {name.partition(".")[0] for name in names} <= allowed


def test_the_application_is_made_without_torch() -> None:
    """It costs a second and 150 MB that a worker with ONNX Runtime never needs."""
    program = "import sys, wsgi; print('torch' in sys.modules, 'onnxruntime' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "False True\n"
