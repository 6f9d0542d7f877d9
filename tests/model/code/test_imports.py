"""What the code of a bundle imports, which is imported before the fork, without executing it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.model.code.declaration import Interface
from app.model.code.imports import SHARED_LIBRARIES, imports_of
from app.registry.loading import ModelSource
from app.registry.release import Release
from app.registry.service import ModelService
from tests.conftest import ROOT, without_coverage
from tests.handler_bundles import with_handler, write_release_of

PREDICTS = "class Handler:\n    def predict(self, request):\n        return 1\n"
OF_TORCHSERVE = """
from ts.torch_handler.base_handler import BaseHandler

class DigitsHandler(BaseHandler):
    pass
"""


@pytest.mark.parametrize(
    ("source", "imported"),
    [
        ("import a.b as x, c", [("a.b", ()), ("c", ())]),
        ("from a.b import c, d as e", [("a.b", ("c", "d"))]),
        ("from a import *", [("a", ("*",))]),
        ("try:\n    import a\nexcept ImportError:\n    import b", [("a", ())]),
        ("with x:\n    import a", [("a", ())]),
        ("if x:\n    import a", []),
        ("def load():\n    import a", []),
        ("from . import a\nfrom .a import b", []),
        ("def (", []),
        ("import a\0", []),
        ("(" * 5000, []),
    ],
)
def test_what_a_module_imports_whenever_it_is_executed_is_found(
    source: str, imported: list[Any]
) -> None:
    assert [*imports_of(source.encode())] == imported


def imported_before_fork(
    path: Path, names: list[str], *, python_path: Path | None = None, allow: bool = True
) -> dict[str, Any]:
    """Return what a master has done in a process of its own: this one has imported all of it."""
    program = f"""
import json, os, sys
from pathlib import Path
import numpy
from app.registry.loading import ModelSource
from app.registry.service import ModelService
threads = len(os.listdir("/proc/self/task"))
ModelService(ModelSource(Path({str(path)!r}), allow_code={allow})).import_libraries()
torch = sys.modules.get("torch")
print(json.dumps({{
    "modules": [name for name in {names} if name in sys.modules],
    "threads": len(os.listdir("/proc/self/task")) - threads,
    "cuda": torch is not None and torch.cuda.is_initialized(),
}}))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=without_coverage() | ({"PYTHONPATH": str(python_path)} if python_path else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


LIBRARIES = ["torch", "PIL.Image", "tokenizers", "pandas"]


@pytest.mark.parametrize(
    ("source", "interface", "modules"),
    [
        (PREDICTS, "lantern", []),
        (f"from PIL import Image\n{PREDICTS}", "lantern", ["PIL.Image"]),
        (f"import torch, tokenizers\n{PREDICTS}", "lantern", ["torch", "tokenizers"]),
        (OF_TORCHSERVE, "torchserve", ["torch"]),
        (f"from helpers import x\n{PREDICTS}", "lantern", ["PIL.Image"]),
    ],
)
def test_the_libraries_that_the_code_imports_are_imported_without_it(
    source: str, interface: Interface, modules: list[str], tmp_path: Path
) -> None:
    """They start no thread, which no worker would have, and not CUDA, which no worker could use."""
    ran = tmp_path / "ran"
    noted = f"open({str(ran)!r}, 'w').close()\n{source}"
    files = {"helpers.py": b"import PIL.Image"} if "helpers" in source else {}
    path = with_handler(tmp_path / "m" / "1", noted, files=files, interface=interface, requests=())
    found = imported_before_fork(path, LIBRARIES)
    assert found == {"modules": modules, "threads": 0, "cuda": False}
    assert not ran.exists()


def test_the_page_names_the_libraries_that_workers_share() -> None:
    page = (ROOT / "docs" / "handlers.md").read_text(encoding="utf-8")
    section = page.partition("## Libraries\n")[2].partition("\n## ")[0]
    assert {*re.findall(r"`(\w+)`", section)} == SHARED_LIBRARIES


def test_nothing_is_imported_for_code_that_may_not_run_or_was_altered(tmp_path: Path) -> None:
    path = with_handler(tmp_path / "m" / "1", f"import tokenizers\n{PREDICTS}", requests=())
    assert not imported_before_fork(path, LIBRARIES, allow=False)["modules"]
    (path / "handler.py").write_text(f"import PIL.Image\n{PREDICTS}")
    assert not imported_before_fork(path, LIBRARIES)["modules"]


def test_a_candidate_s_libraries_are_imported_even_if_the_stable_version_is_altered(
    tmp_path: Path,
) -> None:
    for version, library in (("1", "PIL.Image"), ("2", "tokenizers")):
        with_handler(tmp_path / version, f"import {library}\n{PREDICTS}", requests=())
    write_release_of(tmp_path, Release("1", "2", "shadow"))
    assert imported_before_fork(tmp_path, LIBRARIES)["modules"] == ["PIL.Image", "tokenizers"]
    (tmp_path / "1" / "handler.py").unlink()
    assert imported_before_fork(tmp_path, LIBRARIES)["modules"] == ["tokenizers"]


def test_a_file_of_the_bundle_comes_before_the_library_of_its_name(tmp_path: Path) -> None:
    source = f"from tokenizers import x\n{PREDICTS}"
    files = {"tokenizers.py": b"x = 1"}
    path = with_handler(tmp_path / "m" / "1", source, files=files, requests=())
    assert not imported_before_fork(path, LIBRARIES)["modules"]


@pytest.mark.parametrize("broken", ["raise OSError('no libGL')", "import sys; sys.exit(3)", "("])
def test_a_library_that_can_not_be_imported_stops_no_master_and_is_reported_by_the_worker(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cv2.py").write_text(broken)
    source = f"import cv2, sentencepiece_is_missing\nimport tokenizers\n{PREDICTS}"
    path = with_handler(tmp_path / "m" / "1", source, requests=())
    found = imported_before_fork(path, LIBRARIES, python_path=tmp_path)
    assert found["modules"] == ["tokenizers"]
    monkeypatch.syspath_prepend(str(tmp_path))
    service = ModelService(ModelSource(path, allow_code=True))
    assert not service.load()
    assert "can't be loaded" in service.fault
    assert os.fspath(path / "handler.py") in service.fault
