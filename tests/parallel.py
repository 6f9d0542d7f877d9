"""How the tests are shared out among processes: ``pytest --numprocesses=auto``, as in `make test`.

Tests of a module stay together in one process, for they share servers; with each class of workers
there are others, so those may be apart. What takes longest begins first, so that nothing long is
left for the end.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

_WORKER_CLASS = re.compile(r"[\[-](keepalive|gthread|sync)[]-]")
"""A parameter of a test, in its name."""
_SHARES_NOTHING = ("tests/faults/", "tests/trials/", "tests/integration/test_schemathesis.py")
"""Where each test has a server of its own, and takes long."""
_LONGEST = (
    "tests/trials/test_soak.py::test_a_s",
    "tests/integration/test_schemathesis.py",
    "tests/packing/test_file.py",
    "tests/trials/test_fuzz.py::test_a_few_thousand",
    "tests/integration/test_hot_swap.py",
    "tests/test_readme.py",
    "tests/integration/test_browser.py",
    "tests/worker/test_differential.py",
    "tests/faults/test_clock.py",
    "tests/integration/test_rolling_restart.py",
    "tests/worker/test_stopping.py",
    "tests/test_locale.py",
    "tests/test_coming_from_torchserve.py",
    "tests/trials/test_fuzz.py",
    "tests/integration/",
    "tests/faults/",
    "tests/worker/",
    "tests/packing/",
    "tests/deploy/",
)
"""How the names of those tests begin that take long, the longest first."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have more processes than cores: more than half of the time tests wait for servers and clocks,
    and with two more than cores a quarter of two cores was idle.
    """
    return len(os.sched_getaffinity(0)) + 4


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have tests that belong together run in one process, in the order they were collected in."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect the tests without the cyclic collector, which made it twice as long in each process:
    nearly all that is made then, imported libraries above all, lives until the end. Leave it out of
    later collections, too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest, where several processes share them."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _rank(item.nodeid))


def group(nodeid: str) -> str:
    """Name the group that a test belongs to, by the test's own name."""
    if nodeid.startswith(_SHARES_NOTHING):
        return nodeid
    module, _, name = nodeid.partition("::")
    worker_class = _WORKER_CLASS.search(name)
    return f"{module} {worker_class[1]}" if worker_class else module


def _rank(nodeid: str) -> int:
    ranks = (rank for rank, beginning in enumerate(_LONGEST) if nodeid.startswith(beginning))
    return next(ranks, len(_LONGEST))
