"""What happens to a service in its life, in a row that repeats: releases change, workers end.

Releases are changed by the commands that people use. Of the workers only the youngest is ever
ended, so that the others grow old: what they hold at the end tells of leaks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from app.registry.release import Release, release_in_force
from benchmarks.processes import children
from benchmarks.servers import ROOT, BenchmarkError, Server, environment

FIRST = Release("1")
ROW = (
    "model promote 2",
    "SIGKILL",
    "key create soaked",
    "model canary 3 --traffic 0.3",
    "model clear",
    "SIGTERM",
    "key revoke soaked",
    "model shadow 3",
    "SIGKILL",
    "model promote 3",
    "model rollback",
    "model promote 1",
)
"""What is done, one after the other and again. It begins and ends with version 1 alone."""
_COMMAND_SECONDS = 180


@dataclass(frozen=True)
class Event:
    """Something that was done to the service, and when, by the monotonic clock."""

    began: float
    ended: float
    what: str


@dataclass(frozen=True)
class Ended(Event):
    """A worker that was sent ``signal``."""

    pid: int
    signal: signal.Signals


@dataclass(frozen=True)
class Released(Event):
    """A release that came into force at some time from ``began`` to ``ended``."""

    release: Release


@dataclass
class Chaos:
    """Does things to ``server``, whose versions are in ``models``, and notes each.

    ``settings`` are the server's own, for the commands.
    """

    server: Server
    models: Path
    settings: Mapping[str, str]
    events: list[Event] = field(default_factory=list)

    def do(self, what: str) -> None:
        """Do one of them: end the youngest worker by the signal of that name, or run a command.

        ``what`` is a signal, or what follows ``flask --app wsgi``.
        """
        if what in signal.Signals.__members__:
            self.end_youngest(signal.Signals[what])
        else:
            self.change(*what.split())

    def change(self, *arguments: str) -> None:
        """Run ``flask --app wsgi ...``, and note it, with the release in force after a change."""
        began = monotonic()
        command = [sys.executable, "-m", "flask", "--app", "wsgi", *arguments]
        ran = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(self.settings),
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=_COMMAND_SECONDS,
        )
        if ran.returncode:
            raise BenchmarkError(f"{' '.join(arguments)}: {ran.stderr.strip()[-500:]}")
        words = " ".join(arguments)
        if arguments[0] == "model":
            release = release_in_force(self.models)
            self.events.append(Released(began, monotonic(), words, release))
        else:
            self.events.append(Event(began, monotonic(), words))

    def go_home(self) -> None:
        """Have version 1 serve alone, as at the start."""
        if release_in_force(self.models) != FIRST:
            if release_in_force(self.models).stable == FIRST.stable:
                self.change("model", "clear")
            else:
                self.change("model", "promote", FIRST.stable)

    def end_youngest(self, number: signal.Signals) -> None:
        """Send a signal to the worker that was started last, and wait for its successor."""
        workers = children(self.server.process.pid)
        youngest = max(workers, key=_started)
        began = monotonic()
        os.kill(youngest, number)
        self.events.append(Ended(began, monotonic(), number.name, youngest, number))

    def reload(self) -> None:
        """Have the master replace all of its workers."""
        began = monotonic()
        self.server.process.send_signal(signal.SIGHUP)
        self.events.append(Event(began, monotonic(), "SIGHUP"))


def _started(pid: int) -> int:
    """Return when a process was started, in ticks since the machine was."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(fields[19])
