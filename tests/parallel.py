"""How the tests are shared out among processes: ``pytest -n auto --dist loadgroup``, `make test`.

Tests that share something of their module, as a server, stay together in one process; any other
test is free. What takes longest begins first, so that nothing long is left for the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

_SHARED = ("module", "class", "package")
_SPLIT = ("worker_class", "worker")
"""Parameters of whole modules: with each value there are other servers."""
_LONGEST = (
    "tests/trials/test_soak.py::test_a_",
    "tests/integration/test_schemathesis.py",
    "tests/trials/test_fuzz.py::test_a_few_thousand",
    "tests/integration/test_browser.py",
    "tests/integration/test_hot_swap.py",
    "tests/faults/test_clock.py",
    "tests/integration/test_rolling_restart.py",
    "tests/worker/test_differential.py",
    "tests/worker/test_stopping.py",
    "tests/trials/test_fuzz.py",
    "tests/integration/test_gunicorn.py",
    "tests/integration",
    "tests/faults",
    "tests/worker",
)
"""The beginnings of the names of tests that take long, the longest first."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have more processes than cores: a good part of the time tests wait for servers and clocks."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Name the group of each test, and begin with those that take longest."""
    if not hasattr(config, "workerinput"):
        return  # this process has all the tests
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=_rank)


def _group(item: pytest.Item) -> str:
    if not any(_scopes(item)):
        return item.nodeid.replace("@", "")
    module = item.nodeid.partition("::")[0]
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return "-".join([module, *(str(parameters[name]) for name in _SPLIT if name in parameters)])


def _scopes(item: pytest.Item) -> Iterator[bool]:
    """Tell of each fixture that a test uses whether its module shares it."""
    for definitions in item._fixtureinfo.name2fixturedefs.values():
        yield definitions[-1].scope in _SHARED


def _rank(item: pytest.Item) -> int:
    names = (n for n, name in enumerate(_LONGEST) if item.nodeid.startswith(name))
    return next(names, len(_LONGEST))
