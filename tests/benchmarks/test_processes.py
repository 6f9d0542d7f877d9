"""Processor time and memory of a real tree of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks.processes import cpu_seconds, proportional_mib, tree

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
PARENT = f"""
import subprocess, sys
burn = {BURN!r}
ended = subprocess.run([sys.executable, "-c", burn], check=True)
waiting = "print('burnt', flush=True); input()"
subprocess.run([sys.executable, "-c", burn + waiting], check=True)
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a child that burnt 0.3 s and ended, and one that burnt as much and waits."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"burnt\n"
        yield process
        assert process.stdin
        process.stdin.close()


def test_the_time_of_children_counts_whether_they_live_or_have_ended(
    parent: subprocess.Popen[bytes],
) -> None:
    assert len(tree(parent.pid)) == 2
    assert 0.58 <= cpu_seconds(parent.pid) < 2  # starting three interpreters takes some, too


def test_the_memory_of_a_tree_is_more_than_that_of_its_root(
    parent: subprocess.Popen[bytes],
) -> None:
    child = tree(parent.pid)[1]
    assert proportional_mib(parent.pid) > proportional_mib(child) > 1


def test_a_process_that_is_gone_used_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert cpu_seconds(process.pid) == 0
    assert cpu_seconds(os.getpid()) > 0
