"""Processes that keep a machine busy, beside what is measured or tested."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

_ROUNDS = 100_000


@contextmanager
def busy(processes: int, seconds: float) -> Iterator[list[int]]:
    """Keep so many processes busy while the context lasts; yield their pids.

    They end by themselves after ``seconds``, and when this process is gone.
    """
    context = multiprocessing.get_context("spawn")
    until = monotonic() + seconds
    started = [
        context.Process(target=_spin, args=(os.getpid(), until), daemon=True)
        for _ in range(processes)
    ]
    try:
        for process in started:
            process.start()
        yield [process.pid for process in started if process.pid]
    finally:
        for process in started:
            if process.pid:
                process.kill()
                process.join()


def _spin(parent: int, until: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's to handle
    while os.getppid() == parent and monotonic() < until:
        for _ in range(_ROUNDS):
            pass
