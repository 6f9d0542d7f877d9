"""Shared memory in which several processes count: a slab for each, which outlives its process.

The memory has no name: nobody can remove it, fill it up or share it by mistake, and it is freed
with the last process that has it mapped. A slab is written by one process at a time, which holds
the kernel's lock on it until it ends. The next owner continues from the values that it finds. So
nothing is ever copied or reset, and a sum over all slabs includes each count once, whenever it is
taken and whichever process is killed meanwhile.

This module doesn't know what is counted: a record is a key and some float64. It is never moved, and
visible to others once it is complete. A value is read and written by one instruction, so never in
part.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator, MutableMapping
from math import nan
from typing import NamedTuple, Self

SLOTS = 512
"""The most processes that count at once. During a reload there are twice as many as workers."""
SLAB_BYTES = 2 << 20
"""The size of the records of one process. Pages are allocated as they are written."""
MAX_VALUES = 32
"""The most values of one record."""

_LAYOUT = int.from_bytes(b"slabs-01", "little")
"""The first word. Change it with the layout: a new master may run newer code."""
_MEMORY_HEAD = struct.Struct("=3Q")  # the layout, the number of slabs, the words of each
_RECORD_HEAD = struct.Struct("=IHH")  # bytes of the key, number of values, whether they are live
_LOCK = struct.Struct("hhqqi4x")  # Linux's struct flock: type, whence, start, length, pid
_WORD = 8
_VARIABLE = "METRICS_MEMORY_FD"  # no LANTERN_...: those are settings


class Record(NamedTuple):
    """A key and its values in one slab.

    ``pid`` is that of the slab's owner: 0 if it has none, None in private memory.
    """

    key: bytes
    values: list[float]
    pid: int | None


class _Views(NamedTuple):
    """The memory as bytes, as words and as values."""

    bytes: memoryview
    words: memoryview
    floats: memoryview[float]


class SlabMemory:
    """All slabs, as mapped by one process. Shared memory must be created before the fork."""

    def __init__(self, fd: int | None, slots: int, slab_bytes: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS if fd is None else mmap.MAP_SHARED
        mapping = mmap.mmap(-1 if fd is None else fd, _size(slots, slab_bytes), flags=flags)
        _MEMORY_HEAD.pack_into(mapping, 0, _LAYOUT, slots, slab_bytes // _WORD)
        self.slots = slots
        self._fd = fd
        self._own: int | None = None
        memory = memoryview(mapping)
        views = _Views(memory, memory.cast("Q"), memory.cast("d"))
        used = _MEMORY_HEAD.size // _WORD
        first = (_size(slots, slab_bytes) - slots * slab_bytes) // _WORD
        words = slab_bytes // _WORD
        self._slabs = [
            Slab(views, used + 2 * slot, first + slot * words, words) for slot in range(slots)
        ]

    @classmethod
    def private(cls, slab_bytes: int = SLAB_BYTES) -> Self:
        """Return memory with one slab for this process; a process that is forked has a copy."""
        return cls(None, 1, slab_bytes)

    @classmethod
    def shared(cls, slots: int = SLOTS, slab_bytes: int = SLAB_BYTES) -> Self:
        """Return memory for this process and those that are forked from it.

        Raises `OSError` if the system has none.
        """
        fd = os.memfd_create("lantern-metrics", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.truncate(fd, _size(slots, slab_bytes))
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            return cls(fd, slots, slab_bytes)
        except OSError:
            os.close(fd)
            raise

    @classmethod
    def inherited(cls, environ: MutableMapping[str, str]) -> Self | None:
        """Return the memory that `pass_on` passed to this program, and remove it from ``environ``.

        Return None if there is none, or if it has another layout.
        """
        text = environ.pop(_VARIABLE, "")
        try:
            fd = int(text)
            layout, slots, slab_words = _MEMORY_HEAD.unpack(os.pread(fd, _MEMORY_HEAD.size, 0))
            if layout != _LAYOUT or os.fstat(fd).st_size != _size(slots, slab_words * _WORD):
                return None
            os.set_inheritable(fd, False)
            return cls(fd, slots, slab_words * _WORD)
        except (OSError, ValueError, OverflowError, struct.error):
            return None

    def pass_on(self, environ: MutableMapping[str, str]) -> None:
        """Pass the memory to the program that this process is about to execute in ``environ``."""
        assert self._fd is not None
        os.set_inheritable(self._fd, True)
        environ[_VARIABLE] = str(self._fd)

    def claim(self) -> Slab | None:
        """Return a free slab, which is this process's until it ends; None if all are taken."""
        for slot, slab in enumerate(self._slabs):
            if self._lock(slot):
                self._own = slot
                slab.open()
                return slab
        return None

    def disown(self) -> None:
        """Forget the claim of the parent, in a process that was just forked.

        Only the parent has the kernel's lock.
        """
        self._own = None

    def records(self) -> Iterator[Record]:
        """Yield the records of all slabs, always in the same order.

        Live values are left out once the process that wrote them no longer owns the slab.
        """
        for slot, slab in enumerate(self._slabs):
            if not slab.is_empty:
                pid = self._owner(slot)
                if pid is not None and pid != slab.opened_by:
                    pid = 0  # its live values are still the previous owner's
                for key, place, count, live in slab.directory():
                    if pid != 0 or not live:
                        yield Record(key, list(slab.floats[place : place + count]), pid)

    def _lock(self, slot: int) -> bool:
        """Lock a slab; return False if another process has the lock.

        The lock would also end if this process closed a descriptor of the memory, which none does.
        """
        try:
            if self._fd is not None:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except OSError:
            return False
        return True

    def _owner(self, slot: int) -> int | None:
        """Return the pid of the process that owns a slab; see `Record`."""
        if self._fd is None:
            return None
        if slot == self._own:
            return os.getpid()
        asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, slot, 1, 0)
        kind, _, _, _, pid = _LOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_GETLK, asked))
        return 0 if kind == fcntl.F_UNLCK else int(pid)


class Slab:
    """One slab: ``words`` words from ``start`` on, with records one after the other.

    The number of used words is at ``used``, outside the slab, so that reading it touches no page of
    the slab. All three are positions in the memory. `place` must be called by one thread at a time.
    """

    def __init__(self, views: _Views, used: int, start: int, words: int) -> None:
        self._bytes, self._words, self.floats = views
        self._used = used
        self._opened_by = used + 1
        self.spare = start
        """The position of values that nobody reads, for records that don't fit."""
        self._first = start + MAX_VALUES
        self._room = words - MAX_VALUES
        self._places: dict[tuple[bytes, int, bool], int] = {}

    @property
    def is_empty(self) -> bool:
        """True if there is no record."""
        return not self._words[self._used]

    @property
    def opened_by(self) -> int:
        """The pid of the last process that opened the slab."""
        return self._words[self._opened_by]

    def open(self) -> None:
        """Open the slab for writing by this process, and clear its live values."""
        self._places.clear()
        for key, place, count, live in self.directory():
            self._places[key, count, live] = place
            if live:
                self._fill(place, count, nan)
        self._words[self._opened_by] = os.getpid()

    def directory(self) -> Iterator[tuple[bytes, int, int, bool]]:
        """Yield each record's key, its position, its number of values, and if they are live."""
        at, end = self._first, self._first + self._words[self._used]
        while at < end:
            length, count, live = _RECORD_HEAD.unpack_from(self._bytes, at * _WORD)
            place = at + 1 + -(-length // _WORD)
            yield bytes(self._bytes[(at + 1) * _WORD :][:length]), place, count, bool(live)
            at = place + count

    def place(self, key: bytes, count: int, *, live: bool) -> int | None:
        """Return the position of a record's values, after adding the record if necessary.

        Values begin at 0; those that are ``live``, and end with their process, at NaN. Return None
        if there is no room for another record.
        """
        known = self._places.get((key, count, live))
        if known is not None:
            return known
        at = self._first + self._words[self._used]
        place = at + 1 + -(-len(key) // _WORD)
        used = place + count - self._first
        if used > self._room:
            return None
        _RECORD_HEAD.pack_into(self._bytes, at * _WORD, len(key), count, live)
        self._bytes[(at + 1) * _WORD :][: len(key)] = key
        self._fill(place, count, nan if live else 0.0)  # another process may have been killed here
        self._words[self._used] = used
        self._places[key, count, live] = place
        return place

    def _fill(self, place: int, count: int, value: float) -> None:
        for number in range(place, place + count):
            self.floats[number] = value


def _size(slots: int, slab_bytes: int) -> int:
    """Return the size in bytes of all slabs and of the header before them."""
    before = _MEMORY_HEAD.size + 2 * _WORD * slots
    return -(-before // mmap.PAGESIZE) * mmap.PAGESIZE + slots * slab_bytes
