"""Memory in which several processes count side by side: a slab for each, which outlives it.

The memory has no name: nobody can remove it, fill it up or share it by mistake, and it goes with
the last process that has it, however that ends. A slab is written by one process at a time, the one
that holds the kernel's lock on it, and that lock ends with the process. The next owner counts on
from the values that it finds. So nothing is ever copied or reset, and a sum over all slabs has each
count once, whenever it is taken and whoever is killed meanwhile.

What is counted is unknown here: a record is a key and some float64. It is never moved, and there
for others once it is whole. A value is read and written by one instruction, so never in part.
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
"""Slabs of a memory: so many processes count at once. A reload has twice as many as workers."""
SLAB_BYTES = 2 << 20
"""What the records of one process can take. Memory is given to what is written to, no sooner."""
MAX_VALUES = 32
"""Of one record."""

_LAYOUT = int.from_bytes(b"slabs-01", "little")
"""Stands first; every other layout needs another. A new master may run newer code."""
_MEMORY_HEAD = struct.Struct("=3Q")  # the layout, the number of slabs, the words of each
_RECORD_HEAD = struct.Struct("=IHH")  # bytes of the key, number of values, whether they are live
_LOCK = struct.Struct("hhqqi4x")  # Linux's struct flock: type, whence, start, length, pid
_WORD = 8
_VARIABLE = "METRICS_MEMORY_FD"  # no LANTERN_...: those are settings


class Record(NamedTuple):
    """What was counted in one slab.

    ``pid`` is that of the slab's owner: 0 where it has none, None in memory of one process alone.
    """

    key: bytes
    values: list[float]
    pid: int | None


class _Views(NamedTuple):
    """The memory by bytes, words and values."""

    bytes: memoryview
    words: memoryview
    floats: memoryview[float]


class SlabMemory:
    """All slabs, as one process sees them; to be shared, it is made before the fork."""

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
        """Make memory of one slab for this process alone; a process that is forked has a copy."""
        return cls(None, 1, slab_bytes)

    @classmethod
    def shared(cls, slots: int = SLOTS, slab_bytes: int = SLAB_BYTES) -> Self:
        """Make memory for this process and those that are forked from it.

        Raises OSError where the system gives none.
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
        """Return the memory that `pass_on` left to this program, and take it from ``environ``.

        None where there is none, or it is of another layout.
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
        """Leave the memory to the program, of this environment, that this process will become."""
        assert self._fd is not None
        os.set_inheritable(self._fd, True)
        environ[_VARIABLE] = str(self._fd)

    def claim(self) -> Slab | None:
        """Take a slab that nobody else has, until this process ends; None where all are taken."""
        for slot, slab in enumerate(self._slabs):
            if self._lock(slot):
                self._own = slot
                slab.open()
                return slab
        return None

    def disown(self) -> None:
        """Forget, in a process that was just forked, the claim of the one it was forked from.

        The kernel's lock is that one's alone.
        """
        self._own = None

    def records(self) -> Iterator[Record]:
        """Yield what was counted in all slabs, always in the same order.

        A live value means something only while the process that wrote it has the slab.
        """
        for slot, slab in enumerate(self._slabs):
            if not slab.is_empty:
                pid = self._owner(slot)
                if pid is not None and pid != slab.opened_by:
                    pid = 0  # its live values are still those of the owner before
                for key, place, count, live in slab.directory():
                    if pid != 0 or not live:
                        yield Record(key, list(slab.floats[place : place + count]), pid)

    def _lock(self, slot: int) -> bool:
        """Get the lock on a slab, or tell that another process has it.

        It would also end if this process closed a descriptor of the memory, which none does.
        """
        try:
            if self._fd is not None:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except OSError:
            return False
        return True

    def _owner(self, slot: int) -> int | None:
        """Return the pid of the process that has a slab; see `Record`."""
        if self._fd is None:
            return None
        if slot == self._own:
            return os.getpid()
        asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, slot, 1, 0)
        kind, _, _, _, pid = _LOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_GETLK, asked))
        return 0 if kind == fcntl.F_UNLCK else int(pid)


class Slab:
    """One slab: ``words`` words from ``start`` on, for records behind one another.

    How many are used stands at ``used``, apart from them: to look there touches no slab. All are
    places in the memory. The caller of `place` sees to it that no other thread calls it.
    """

    def __init__(self, views: _Views, used: int, start: int, words: int) -> None:
        self._bytes, self._words, self.floats = views
        self._used = used
        self._opened_by = used + 1
        self.spare = start
        """A place for the values of any record, which nobody reads."""
        self._first = start + MAX_VALUES
        self._room = words - MAX_VALUES
        self._places: dict[tuple[bytes, int, bool], int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is no record."""
        return not self._words[self._used]

    @property
    def opened_by(self) -> int:
        """The pid of the last process that began to write here."""
        return self._words[self._opened_by]

    def open(self) -> None:
        """Begin to write here, with no live value."""
        self._places.clear()
        for key, place, count, live in self.directory():
            self._places[key, count, live] = place
            if live:
                self._fill(place, count, nan)
        self._words[self._opened_by] = os.getpid()

    def directory(self) -> Iterator[tuple[bytes, int, int, bool]]:
        """Yield the key, the place, the number of values and the liveness of each record."""
        at, end = self._first, self._first + self._words[self._used]
        while at < end:
            length, count, live = _RECORD_HEAD.unpack_from(self._bytes, at * _WORD)
            place = at + 1 + -(-length // _WORD)
            yield bytes(self._bytes[(at + 1) * _WORD :][:length]), place, count, bool(live)
            at = place + count

    def place(self, key: bytes, count: int, *, live: bool) -> int | None:
        """Return where the values of a record are; it is added where it isn't there yet.

        They begin at 0, and at NaN those that are ``live``: that mean nothing without their
        process. None where there is no room for another record.
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
        self._fill(place, count, nan if live else 0.0)  # not empty if one was killed at this
        self._words[self._used] = used
        self._places[key, count, live] = place
        return place

    def _fill(self, place: int, count: int, value: float) -> None:
        for number in range(place, place + count):
            self.floats[number] = value


def _size(slots: int, slab_bytes: int) -> int:
    """Return the bytes of all slabs and of what stands before them."""
    before = _MEMORY_HEAD.size + 2 * _WORD * slots
    return -(-before // mmap.PAGESIZE) * mmap.PAGESIZE + slots * slab_bytes
