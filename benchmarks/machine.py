"""Where and of what the figures were taken: the machine, the versions, the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from app.worker.cores import usable_cores
from benchmarks.peers import pins, read_pins
from benchmarks.servers import LANTERN, PEER_NAMES, ROOT

_FURTHER = ("mlserver", "kserve", "torchserve", "bentoml")


def describe() -> dict[str, Any]:
    """Return the processor, its cores, memory, kernel, Python, wrk and every library's version."""
    ours = read_pins(ROOT / "requirements.txt")
    return {
        "cpu": _processor(),
        "cores": usable_cores(),
        "memory_gib": round(int(_field("/proc/meminfo", "MemTotal").split()[0]) / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "wrk": _first_line("wrk", "-v"),
        "libraries": {
            LANTERN: {name: version(name) for name in ours},
            **{name: pins(name) for name in (*PEER_NAMES, *_FURTHER)},
        },
    }


def _processor() -> str:
    """Return the name of the processor; virtual machines have one name for several models."""
    name, *model = (
        _field("/proc/cpuinfo", key) for key in ("model name", "cpu family", "model", "stepping")
    )
    return f"{name} ({'/'.join(model)})"


def commit() -> str:
    """Return the commit that is checked out, with ``-dirty`` when files differ from it.

    Earlier results don't count: they change by measuring.
    """
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changed else head


def load_average() -> float:
    """Return the load of the last minute: what others did on this machine."""
    return os.getloadavg()[0]


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    return ran.stdout.strip()


def _first_line(*command: str) -> str:
    """Return the first line that a program prints; wrk says its version and exits with 1."""
    ran = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    return (ran.stdout or ran.stderr).partition("\n")[0].partition(" Copyright")[0]


def _field(path: str, name: str) -> str:
    """Return the value of the first line ``name : value`` of a file in /proc."""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"
