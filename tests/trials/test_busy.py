"""The processes that keep a machine busy do so, and end with what they are there for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.busy import busy
from benchmarks.processes import cpu_seconds
from tests.conftest import ROOT
from tests.integration.conftest import wait_for

# A shell's background jobs ignore SIGINT, and so would what they start.
COMMAND = [
    *("env", "--default-signal=INT"),
    *(sys.executable, "-m", "trials.busy", "--processes", "2"),
]


def started(
    *command: str, options: tuple[str, ...] = ()
) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a command beside two busy processes; give the process, and the pids of the two."""
    process = subprocess.Popen(
        [*COMMAND, *options, "--", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pids = re.findall(r"\d+", process.stdout.readline().partition(":")[2])
    return process, [int(pid) for pid in pids]


def test_they_use_all_the_time_they_get_and_end_with_the_context() -> None:
    with busy(2, 600) as pids:
        assert len(pids) == 2
        wait_for(lambda: all(cpu_seconds(pid) > 0.5 for pid in pids))
    assert not any(map(is_running, pids))


def test_they_end_by_themselves_when_their_time_is_up() -> None:
    process, pids = started("sleep", "600", options=("--minutes", "0.001"))
    wait_for(lambda: not any(map(is_running, pids)))
    process.terminate()
    process.wait()


def is_running(pid: int) -> bool:
    """Return whether a process has not ended, though nobody may have waited for it."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] not in "ZX"


def test_the_status_is_that_of_the_command() -> None:
    for status in (0, 3):
        process, pids = started("sh", "-c", f"exit {status}")
        assert process.wait() == status
        assert len(pids) == 2
        assert not any(map(is_running, pids))


def test_a_command_that_is_interrupted_ends_and_they_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    for number in (signal.SIGTERM, signal.SIGINT):
        pid.unlink(missing_ok=True)
        process, pids = started("sh", "-c", f"echo $$ > {pid}; exec sleep 600")
        command = int(wait_for(lambda: pid.exists() and pid.read_text().strip()))
        process.send_signal(number)
        assert process.wait() == 128 + number
        assert not any(map(is_running, pids))
        wait_for(lambda command=command: not is_running(command))


def test_they_end_when_the_one_who_started_them_is_killed(tmp_path: Path) -> None:
    process, pids = started("sleep", "0.1")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(map(is_running, pids)))
