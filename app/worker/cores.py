"""The number of cores that this process may use, by its affinity and its control groups.

In containers, pods and slices of systemd, that is fewer than the machine has. The affinity already
includes the effect of a cpuset.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path, PurePosixPath

_ESCAPED = re.compile(r"\\([0-7]{3})")


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use, rounded up, at least 1.

    ``root`` is the directory of ``/proc`` and ``/sys``. See sched_setaffinity(2), cgroups(7), and
    in the kernel's documentation admin-guide/cgroup-v2 (``cpu.max``) and scheduler/sched-bwc
    (``cpu.cfs_quota_us``). Files that can't be read are ignored.
    """
    affinity = len(os.sched_getaffinity(0))
    return max(1, math.ceil(min([Fraction(affinity), *_quotas(root)])))


def _quotas(root: Path) -> Iterator[Fraction]:
    """Yield the quota of each control group of this process that has one, in cores."""
    for directory, top in _groups(root):
        # The limits of parent groups, such as a slice or a pod, apply as well.
        for group in (directory, *directory.parents):
            quota = _quota(group)
            if quota is not None:
                yield quota
            if group == top:
                break


def _quota(group: Path) -> Fraction | None:
    """Return the quota of one group from the files of version 2 or 1; None if there is none."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = _read(group / "cpu.max").split()
        return None if quota == "max" else Fraction(int(quota), int(period))
    with suppress(OSError, ValueError, ZeroDivisionError):
        microseconds = int(_read(group / "cpu.cfs_quota_us"))
        period = _read(group / "cpu.cfs_period_us")
        return None if microseconds < 0 else Fraction(microseconds, int(period))
    return None


def _groups(root: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the directory of this process's group in each mount, and that of the mount's root.

    Mounts that only show groups of other processes are left out.
    """
    with suppress(OSError, ValueError):
        paths = dict(_paths(_read(root / "proc/self/cgroup")))
        for is_v2, shown, mounted_at in _mounts(_read(root / "proc/self/mountinfo")):
            below = _below(shown, paths.get(is_v2))
            if below is not None:
                top = root / mounted_at.lstrip("/")
                yield (top / below if (top / below).is_dir() else top), top


def _below(shown: str, path: str | None) -> PurePosixPath | None:
    """Return the path of a group relative to the root of a mount; None if it is not below it.

    Both are relative to the process's cgroup namespace. A group outside it is written ``/..``,
    without the way down from there.
    """
    if path is None or ".." in path:
        return None
    if not shown.strip("/."):
        return PurePosixPath(path[1:] if shown == "/" else "")
    with suppress(ValueError):
        return PurePosixPath(path).relative_to(shown)
    return None


def _paths(text: str) -> Iterator[tuple[bool, str]]:
    """Yield, for each hierarchy in ``/proc/self/cgroup`` that may limit the CPU, whether it is of
    version 2, and the path of the group.
    """
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield True, path
        elif "cpu" in controllers.split(","):
            yield False, path


def _mounts(text: str) -> Iterator[tuple[bool, str, str]]:
    """Yield from ``/proc/self/mountinfo``, in the same way, the root group and the mount point."""
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.partition(" ")
        options = options.rpartition(" ")[2]
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            shown, mounted_at = (_unescaped(field) for field in fields.split(" ")[3:5])
            yield kind == "cgroup2", shown, mounted_at


def _unescaped(field: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), field)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape")
