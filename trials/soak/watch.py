"""What the processes of a server hold, sampled while they serve: memory, descriptors, threads."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import Counter
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from time import monotonic

from benchmarks.processes import children, proportional_mib

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Process:
    """What one process holds; memory in MiB.

    ``proportional`` is its share of what it maps, with pages that n processes map counted 1/n. It
    changes when others come and go; ``resident``, all it maps that is in memory, does not.
    """

    proportional: float
    resident: float
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Sample:
    """A server at one moment, by the monotonic clock: its master and its workers by pid."""

    at: float
    master: Process
    workers: dict[int, Process]

    @property
    def tree_mib(self) -> float:
        """The memory of all its processes, what they share counted once."""
        return self.master.proportional + sum(one.proportional for one in self.workers.values())


class Watch:
    """Samples the tree of ``master`` every ``interval`` seconds while the context lasts."""

    def __init__(self, master: int, interval: float) -> None:
        self.samples: list[Sample] = []
        self._master = master
        self._interval = interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            sample = take(self._master)
            if sample:
                self.samples.append(sample)


def take(master: int) -> Sample | None:
    """Sample now; None where a process ended in the midst of it."""
    at = monotonic()
    try:
        workers = {pid: _process(pid) for pid in children(master)}
        return Sample(at, _process(master), workers)
    except (FileNotFoundError, ProcessLookupError, KeyError):
        return None


def _process(pid: int) -> Process:
    directory = Path("/proc", str(pid))
    status = _fields(directory / "status")
    return Process(
        _fields(directory / "smaps_rollup")["Pss"] / 1024,
        status["VmRSS"] / 1024,
        sum(1 for _ in (directory / "fd").iterdir()),
        status["Threads"],
    )


def _fields(path: Path) -> dict[str, int]:
    """Return the fields of a file in /proc that begin with a number; memory is in KiB."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        number = _NUMBER.match(value.strip())
        if number:
            found[name] = int(number[0])
    return found


def descriptors(pid: int) -> Counter[str]:
    """Count the open descriptors of a process by kind: sockets, pipes, files by their names."""
    kinds: Counter[str] = Counter()
    for link in Path("/proc", str(pid), "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of this very look, in our own process
            kinds[_kind(str(link.readlink()))] += 1
    return kinds


def _kind(target: str) -> str:
    """Name what a descriptor leads to: ``socket:[1234]``, ``anon_inode:[eventpoll]``, a path."""
    if target.endswith(" (deleted)"):
        return "a deleted file"
    if target.startswith("/"):
        return _NUMBER.sub("N", Path(target).name)
    return re.sub(r":\[\d+\]$", "", target)


@dataclass(frozen=True)
class Holdings:
    """What the processes of a server hold while nobody asks them anything.

    Of each kind of descriptor, and of threads, how many; and the memory of all, in MiB.
    """

    master: Counter[str]
    workers: dict[int, Counter[str]]
    tree_mib: float = 0.0

    @property
    def most(self) -> Counter[str]:
        """The most of each kind that any worker holds."""
        return reduce(or_, self.workers.values())


def holdings(master: int) -> Holdings:
    """Return what an idle server holds."""
    workers = {pid: _held(pid) for pid in children(master)}
    return Holdings(_held(master), workers, proportional_mib(master))


def _held(pid: int) -> Counter[str]:
    return descriptors(pid) + Counter(threads=_process(pid).threads)
