"""The tests are shared out so that those of one server stay together, in one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.parallel import group


def test_tests_of_one_server_stay_together() -> None:
    module = "tests/integration/test_gunicorn.py"
    assert group(f"{module}::test_a[gthread-1-True]") == group(f"{module}::test_b[gthread]")
    assert group(f"{module}::test_a[gthread]") != group(f"{module}::test_a[sync]")
    assert group("tests/test_api.py::test_a[x]") == group("tests/test_api.py::test_b")
    assert group("tests/faults/test_log.py::test_a") != group("tests/faults/test_log.py::test_b")


def test_a_fixture_of_a_module_is_made_in_one_process(tmp_path: Path) -> None:
    """By the xdist and the pytest that are installed, which have to agree about it."""
    (tmp_path / "conftest.py").write_text(
        "from tests.parallel import pytest_xdist_make_scheduler  # noqa: F401\n"
    )
    module = (
        "import os, pathlib, pytest\n"
        "@pytest.fixture(scope='module')\n"
        "def made(): pathlib.Path(__file__).with_suffix(f'.{os.getpid()}').touch()\n"
        "@pytest.mark.parametrize('n', range(20))\n"
        "def test(n, made): pass\n"
    )
    for name in "abc":
        (tmp_path / f"test_{name}.py").write_text(module)
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--numprocesses=2"]
    ran = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "60 passed" in ran.stdout, ran.stdout + ran.stderr
    made = [path.stem for path in tmp_path.glob("test_?.[0-9]*")]
    assert sorted(made) == ["test_a", "test_b", "test_c"]
    assert len({path.suffix for path in tmp_path.glob("test_?.[0-9]*")}) == 2
