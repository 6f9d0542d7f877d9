"""What a tree of processes has used: processor time and memory, as Linux tells in ``/proc``."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024


def children(pid: int) -> list[int]:
    """Return the pids of the children of ``pid`` that live now; none when it is gone."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [int(child) for child in path.read_text(encoding="utf-8").split()]
    return found


def tree(pid: int) -> list[int]:
    """Return ``pid`` and every descendant that lives now."""
    return [pid, *(one for child in children(pid) for one in tree(child))]


def cpu_seconds(pid: int) -> float:
    """Return the seconds of user and system time that ``pid`` and its descendants have used.

    Those that have ended count too, once they were waited for (``cutime`` and ``cstime`` in
    proc(5)). The kernel counts in ticks, mostly of 10 ms.
    """
    ticks = 0
    for one in tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The name, in parentheses, may hold spaces; fields 14 to 17 are counted from 1.
            fields = (
                Path(f"/proc/{one}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            )
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS_PER_SECOND


def proportional_mib(pid: int) -> float:
    """Return the memory of ``pid`` and its descendants in MiB, what they share counted once.

    The sum of their proportional set sizes: a page that n processes map counts 1/n in each.
    """
    kib = 0
    for one in tree(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text(encoding="utf-8").splitlines():
            if line.startswith("Pss:"):
                kib += int(line.split()[1])
    return kib * 1024 / MIB
