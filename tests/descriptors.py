"""The open files of a process, read while it goes on opening and closing them."""

import contextlib
from pathlib import Path


def open_files(pid: int | str) -> dict[Path, str]:
    """Return what each open descriptor of a process leads to, by its link in /proc.

    One that is closed meanwhile is left out. "self" is this process.
    """
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[link] = str(link.readlink())
    return found
