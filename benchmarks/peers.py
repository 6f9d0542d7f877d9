"""The peers' virtual environments: made once, and made anew when a peer's pins change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.servers import PEERS, VENVS


def make_environments(names: Iterable[str]) -> None:
    """Make the environment of each of these peers that lacks one that fits its requirements.txt."""
    for name in names:
        make_environment(VENVS / name, PEERS / name / "requirements.txt")


def make_environment(directory: Path, requirements: Path) -> None:
    """Make an environment in ``directory``, unless one is there that fits ``requirements``."""
    stamp = directory / ".made-from"  # written last, so half an environment has none
    wanted = f"{sys.version}\n{requirements.read_text(encoding='utf-8')}"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return
    print(f"Making the environment {directory.name}", flush=True)
    shutil.rmtree(directory, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(directory))
    pip = ("pip", "--disable-pip-version-check", "install", "--quiet")
    _run(str(directory / "bin" / "python"), "-m", *pip, "-r", str(requirements))
    stamp.write_text(wanted, encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    """Return the versions of a peer's libraries."""
    return read_pins(PEERS / name / "requirements.txt")


def read_pins(path: Path) -> dict[str, str]:
    """Return ``{name: version}`` of lines like ``orjson==3.13.0``, also in files it takes in."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement.startswith("-r "):
            found |= read_pins(path.parent / requirement.removeprefix("-r ").strip())
        elif requirement:
            name, version = requirement.split("==")
            found[name] = version
    return found


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)
