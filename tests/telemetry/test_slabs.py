"""Counting by several processes in memory that they share, and what becomes of it when they end."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from app.telemetry.registry import Counter, Gauge, Histogram, Registry, Series, Totals
from app.telemetry.slabs import Slab, SlabMemory
from app.telemetry.versions import ServedVersions


class Counting:
    """A registry with one metric of each kind, on shared memory where ``memory`` is given."""

    def __init__(self, memory: SlabMemory | None = None) -> None:
        self.registry = Registry()
        self.events = Counter("events_total", "Events.", ["kind"], registry=self.registry)
        self.seconds = Histogram("seconds", "Time.", buckets=(1, 2), registry=self.registry)
        self.busy = Gauge("busy", "Now.", multiprocess_mode="livesum", registry=self.registry)
        self.by_pid = Gauge("by_pid", "Now.", multiprocess_mode="liveall", registry=self.registry)
        self.versions = ServedVersions(self.registry)
        if memory is not None:
            self.registry.share(memory)

    def of(self, kind: str) -> float:
        """How many events there were, over all processes."""
        return self.events.totals().get((kind,), [0.0])[0]


@pytest.fixture
def counting() -> Counting:
    return Counting(SlabMemory.shared(slots=4, slab_bytes=1 << 16))


@contextmanager
def worker(counting: Counting, work: Callable[[], None]) -> Iterator[int]:
    """Fork a process that does some work, and lives until the block ends, when it is killed."""
    done, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            counting.registry.attach()
            work()
            os.write(tell, b"x")
            signal.pause()
        os._exit(1)
    os.close(tell)
    try:
        assert os.read(done, 1), "it failed"
        yield pid
    finally:
        os.close(done)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_what_a_process_counted_outlives_it_and_what_it_did_at_the_time_does_not(
    counting: Counting,
) -> None:
    def work() -> None:
        counting.events.labels("a").inc(3)
        counting.seconds.labels().observe(1.5)
        counting.busy.labels().inc()
        counting.by_pid.labels().set(7)
        counting.versions.remember("model", "2")

    counting.events.labels("a").inc(2)
    with worker(counting, work) as pid:
        assert counting.of("a") == 5
        assert counting.busy.totals() == {(): [1]}
        assert counting.by_pid.totals() == {(str(pid),): [7]}
    assert counting.of("a") == 5
    assert counting.seconds.totals() == {(): [1.5, 0, 1, 0]}
    assert counting.busy.totals() == counting.by_pid.totals() == {}
    assert counting.versions.recall("model") == "2"
    with worker(counting, lambda: counting.events.labels("a").inc()):
        assert counting.of("a") == 6
        assert counting.busy.totals() == {}, "its slab has the gauges of who had it before"


def test_any_number_of_processes_one_after_another_count_in_the_same_slabs(
    counting: Counting,
) -> None:
    for _ in range(20):  # there are four
        with worker(counting, lambda: counting.events.labels("a").inc()):
            pass
    assert counting.of("a") == 20


def test_the_latest_version_that_any_process_could_serve_is_remembered(counting: Counting) -> None:
    counting.versions.remember("model", "1")
    with worker(counting, lambda: counting.versions.remember("model", "2")):
        counting.versions.remember("other", "3")
        assert counting.versions.recall("model") == "2"
        counting.versions.remember("model", "1")
    assert counting.versions.recall("model") == "1"
    assert counting.versions.recall("no model") is None


def grown(counting: Counting, last: Totals) -> Totals:
    """Return what is counted now, of which nothing is less than ``last``."""
    now = counting.events.totals() | counting.seconds.totals()
    for labels, values in last.items():
        assert all(map(float.__le__, values, now[labels])), (labels, values, now[labels])
    return now


def test_processes_killed_at_any_moment_leave_sums_that_only_grow(counting: Counting) -> None:
    """They count, observe and add series without a pause, and are killed in the midst of it."""
    chance = random.Random(1)

    def work(number: int) -> None:
        counting.registry.attach()
        for step in range(1 << 30):
            counting.events.labels("a").inc()
            counting.events.labels(f"{number}-{step % 50}").inc()
            counting.seconds.labels().observe(2)

    last: Totals = {}
    for number in range(30):
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException):
                work(number % 5)
            os._exit(1)
        before = counting.of("a")
        while counting.of("a") == before:
            time.sleep(0.001)
        time.sleep(chance.random() / 100)
        os.kill(pid, signal.SIGKILL)
        last = grown(counting, last)  # while it ends
        os.waitpid(pid, 0)
        last = grown(counting, last)
    total, *buckets = counting.seconds.totals()[()]
    observed = sum(buckets)
    # Each was killed once, at most between two of these.
    assert 0 <= total - 2 * observed <= 2 * 30
    assert 0 <= counting.of("a") - observed <= 30


class Slow:
    """Values that take a while to be read, in which other threads have their turn."""

    def __init__(self, values: memoryview, reading: Callable[[], object]) -> None:
        self._values = values
        self._reading = reading

    def __getitem__(self, place: int) -> float:
        value: float = self._values[place]
        self._reading()
        return value

    def __setitem__(self, place: int, value: float) -> None:
        self._values[place] = value


def slow_down(series: Series, reading: Callable[[], object]) -> None:
    """Call ``reading`` in the midst of each addition to a series."""
    series.move(Slow(series._values, reading), series.place, series._lock)  # type: ignore[arg-type]


def test_no_count_of_several_threads_is_lost(counting: Counting) -> None:
    every: list[Series] = [counting.events.labels("a"), counting.seconds.labels()]
    every.append(counting.busy.labels())
    for series in every:
        slow_down(series, lambda: time.sleep(0.001))

    def count() -> None:
        for _ in range(20):
            counting.events.labels("a").inc()
            counting.seconds.labels().observe(3)
            counting.busy.labels().inc()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counting.of("a") == 80
    assert counting.seconds.totals() == {(): [240, 0, 0, 80]}
    assert counting.busy.totals() == {(): [80]}


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_process_that_a_worker_forks_does_not_count_as_the_worker(is_shared: bool) -> None:
    counting = Counting(SlabMemory.shared(slots=2, slab_bytes=1 << 16) if is_shared else None)
    events = counting.events.labels("a")
    events.inc()
    pid = os.fork()
    if pid == 0:
        before = counting.of("a")
        events.inc(5)
        os._exit(int(counting.of("a") - before))
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 5, "it has what it counted itself"
    assert counting.of("a") == 1


def test_threads_that_count_during_a_fork_leave_no_lock_behind(counting: Counting) -> None:
    go_on = threading.Event()
    are_in = threading.Barrier(3)

    def wait() -> None:
        are_in.wait()
        go_on.wait()

    def hold() -> None:
        with counting.registry.adding:
            wait()

    slow_down(counting.events.labels("a"), wait)
    threads = [
        threading.Thread(target=hold),
        threading.Thread(target=counting.events.labels("a").inc),
    ]
    for thread in threads:
        thread.start()
    are_in.wait()

    def work() -> None:
        counting.events.labels("a").inc()
        counting.events.labels("b").inc()

    with worker(counting, work):
        go_on.set()
        for thread in threads:
            thread.join()
    assert (counting.of("a"), counting.of("b")) == (2, 1)


def test_a_process_killed_while_it_adds_a_series_spoils_nothing(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = os.fork()
    if pid == 0:
        counting.registry.attach()
        monkeypatch.setattr(Slab, "_fill", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        counting.events.labels("x" * 200).inc()  # which has written its key by then
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    with worker(counting, lambda: counting.events.labels("a").inc()):
        assert counting.events.totals() == {("a",): [1]}


def test_a_full_slab_takes_no_further_series_says_so_once_and_counts_on(
    counting: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    first = counting.events.labels("a")
    for number in range(5_000):
        counting.events.labels(f"{number}").inc()
        counting.seconds.labels().observe(1)
        first.inc()
    seen = len(counting.events.totals())
    assert 500 < seen < 5_000
    assert counting.of("a") == 5_000
    (line,) = [record for record in caplog.records if "is full" in record.message]
    assert line.__dict__["metric"] == "events_total"


def test_more_processes_than_slabs_are_not_counted_and_say_so(
    counting: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    def count() -> None:
        counting.events.labels("a").inc()

    def count_in_vain() -> None:
        assert "Too many processes" in caplog.text
        count()
        assert counting.of("a") == 3, "it answers with the sum of the others"

    with ExitStack() as workers:
        for _ in range(3):  # and this process has a slab
            workers.enter_context(worker(counting, count))
        with worker(counting, count_in_vain):
            assert counting.of("a") == 3
    with worker(counting, count):
        assert counting.of("a") == 4


def test_the_memory_is_found_again_by_its_descriptor_and_by_nothing_else(
    counting: Counting,
) -> None:
    environ: dict[str, str] = {}
    counting.events.labels("a").inc()
    counting.registry.pass_on(environ)
    ((name, fd),) = environ.items()
    assert os.get_inheritable(int(fd))
    pid = os.fork()
    if pid == 0:
        os._exit(int(found_again(name, int(fd))))
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    reading, writing = os.pipe()
    for wrong in ("", "x", "-1", "99999999999999999999", str(reading), str(writing)):
        assert SlabMemory.inherited({name: wrong}) is None
    assert SlabMemory.inherited({}) is None
    with pytest.raises(PermissionError):  # or whoever uses it would die of SIGBUS
        os.truncate(int(fd), 0)


def found_again(name: str, fd: int) -> bool:
    environ = {name: str(fd)}
    memory = SlabMemory.inherited(environ)
    if memory is None or environ or os.get_inheritable(fd):
        return False
    counting = Counting(memory)
    counting.events.labels("a").inc()
    return counting.of("a") == 2


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf")])
def test_a_counter_can_not_be_spoiled(amount: float) -> None:
    counting = Counting()
    counting.events.labels("a").inc(2)
    with pytest.raises(ValueError, match="can't be increased by"):
        counting.events.labels("a").inc(amount)
    assert counting.of("a") == 2


def test_labels_are_told_apart_and_must_be_as_many_as_there_are_names() -> None:
    counting = Counting()
    assert counting.events.labels("a") is counting.events.labels("a")
    assert counting.events.labels(1) is counting.events.labels("1")
    with pytest.raises(ValueError, match="events_total has the labels"):
        counting.events.labels("a", "b")


def test_what_a_master_of_other_code_counts_is_left_out() -> None:
    memory = SlabMemory.shared(slots=2, slab_bytes=1 << 16)
    counting = Counting(memory)
    counting.events.labels("a").inc()

    class Newer(Counting):
        def __init__(self) -> None:
            self.registry = Registry()
            self.events = Counter("events_total", "Events.", ["sort"], registry=self.registry)
            Counter("more_total", "More.", registry=self.registry).labels().inc()
            seconds = Histogram("seconds", "Time.", buckets=(1, 3), registry=self.registry)
            seconds.labels().observe(1)
            self.registry.share(memory)

    newer = Newer()
    newer.events.labels("a").inc(4)
    assert counting.events.totals() == {("a",): [1]}
    assert counting.seconds.totals() == {}
    assert newer.events.totals() == {("a",): [4]}
