"""Files of metrics whose blocks are reserved before anything is written to them.

prometheus-client makes its files sparse and maps them. Where the file system is full, the first
write to a page of such a file is no error but the signal SIGBUS, which ends the process. Reserving
makes it an error of opening or growing the file. (On a file system that copies on write, as ZFS and
Btrfs do, that isn't certain.)
"""

from __future__ import annotations

import os

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

_FIRST_BYTES = 1 << 16  # as prometheus-client begins
_LONGEST_ENTRY = 1 << 12
"""More than a name, its labels and its help take."""


class ReservedDict(MmapedDict):
    """prometheus-client's mapped file of values; raises OSError where there is no room for more."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if not read_mode:
            with open(filename, "a+b") as file:  # noqa: PTH123  # as prometheus-client does
                size = os.fstat(file.fileno()).st_size
                os.posix_fallocate(file.fileno(), 0, size or _FIRST_BYTES)
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def reserve(self, more: int) -> None:
        """Have room for entries of ``more`` bytes in all, or raise OSError and change nothing."""
        capacity = self._capacity
        while self._used + more > capacity:
            capacity *= 2  # as it will grow
        if capacity > self._capacity:
            os.posix_fallocate(self._f.fileno(), 0, capacity)

    def _init_value(self, key: str) -> None:
        self.reserve(max(_LONGEST_ENTRY, 5 * len(key)))
        super()._init_value(key)  # type: ignore[no-untyped-call]


def reserve_files() -> None:
    """Have prometheus-client keep its values in such files."""
    vars(values)["MmapedDict"] = ReservedDict  # where it looks the class up
