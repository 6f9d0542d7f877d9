"""What SECURITY.md promises is held by tests that are there, and its bounds are those in force."""

from __future__ import annotations

import ast
import re
from operator import attrgetter

import pytest

from app.settings import load_settings
from tests.conftest import ROOT

DOCUMENT = (ROOT / "SECURITY.md").read_text()
TESTS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCUMENT)
BOUNDS = re.findall(r"^\| `([\w.]+)` \| (\d+) \|", DOCUMENT, re.MULTILINE)


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_every_test_that_holds_a_promise_is_there(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_a_test() -> None:
    tables = re.findall(r"\| promise \| held by \|\n\| --- \| --- \|\n((?:\|.*\n)+)", DOCUMENT)
    promises = "".join(tables).splitlines()
    assert len(promises) > 15
    assert [line for line in promises if "::test_" not in line] == []


@pytest.mark.parametrize(("setting", "value"), BOUNDS)
def test_every_bound_is_the_default_of_its_setting(setting: str, value: str) -> None:
    assert attrgetter(setting)(load_settings({})) == int(value)


def test_every_limit_that_has_a_default_is_told() -> None:
    limits = load_settings({}).limits
    numbers = {name for name in limits.__slots__ if isinstance(getattr(limits, name), int)}
    assert {f"limits.{name}" for name in numbers} <= {setting for setting, _ in BOUNDS}
