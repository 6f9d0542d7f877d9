"""What is freed is kept for the next request."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PROGRAM = """
import resource, sys
from app.worker.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    for _ in range(8):
        parts = [bytes(1_500_000) for _ in range(8)]
        del parts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(-faults() + faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this libc has no such setting")
def test_memory_that_was_freed_is_not_got_back_page_by_page() -> None:
    default, kept = (
        int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, way],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for way in ("default", "keep")
    )
    assert kept < default / 10
