"""What the queue of calls learns of costs, and what its pool leaves behind: in this process."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from app.worker import call_queue, pool, request_queue
from app.worker.call_queue import CallQueues
from app.worker.pool import Call, CallPool
from app.worker.request_queue import QueueEntry


class Clock:
    """The monotonic clock of queue and pool, which a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Entry(QueueEntry):
    """An entry whose request begins in a thread of `FakePool`, and notes what became of it."""

    def __init__(self, queues: CallQueues[float], name: str, arrived: float) -> None:
        super().__init__(arrived)
        self.queues = queues
        self.queue = queues[name]
        self.budget = math.inf
        self.state = "waits"

    def advance(self) -> None:
        if self.queue.expire(self, self.budget) is not None:
            self.state = "expired"
        else:
            self.state = "runs"
            self.queues.start(self, lambda: None)

    def resume(self, error: BaseException | None) -> None:
        self.state = "ended"


class FakePool(CallPool):
    """A pool without threads, whose calls end when a test says so."""

    def start(self, call: Call) -> None:
        self._running[call] = None

    def end(self, entry: Entry) -> None:
        self._ended.extend(call for call in self._running if call.entry is entry)


THREADS = 4


class Queue:
    """A queue of calls with four threads, and the clock that it knows."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.pool = FakePool(THREADS, lambda: None)
        self.calls: CallQueues[float] = CallQueues(
            lambda budget: budget, self.pool, lambda entry: entry.advance()
        )

    def add(self, budget: float = math.inf, size: int = 1, name: str = "slow") -> Entry:
        entry = Entry(self.calls, name, self.clock.now)
        entry.budget = budget
        if entry.queue.enqueue(entry, budget, size) is not None:
            entry.state = "rejected"
        self.calls.dispatch()
        return entry

    def end(self, *entries: Entry) -> None:
        for entry in entries:
            self.pool.end(entry)
        self.calls.step(lambda entry, error: entry.resume(error))


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    clock = Clock()
    for module in (request_queue, call_queue, pool):
        monkeypatch.setattr(module, "monotonic", clock)
    made = Queue(clock)
    yield made


def teach(queue: Queue, seconds: float) -> None:
    """Have calls beside each other in all threads take ``seconds``, again and again."""
    for _ in range(50):
        entries = [queue.add() for _ in range(THREADS)]
        queue.clock.now += seconds
        queue.end(*entries)


def test_the_cost_of_a_call_is_its_share_of_the_threads(queue: Queue) -> None:
    teach(queue, 2.0)
    running = [queue.add() for _ in range(THREADS)]
    assert queue.calls.backlog_seconds == 0
    waiting = [queue.add() for _ in range(8)]
    assert queue.calls.backlog_seconds == pytest.approx(8 * 2.0 / THREADS)
    assert queue.add(budget=1.0).state == "rejected"
    assert queue.add(budget=100.0).state == "waits"
    queue.end(*running)
    assert [entry.state for entry in waiting] == ["runs"] * 4 + ["waits"] * 4


def test_what_runs_alone_says_nothing_of_what_runs_beside_others(queue: Queue) -> None:
    for _ in range(50):
        entry = queue.add()
        queue.clock.now += 2.0
        queue.end(entry)
    for _ in range(THREADS + 8):
        queue.add()
    assert queue.calls.backlog_seconds == 0


def test_requests_expire_while_no_thread_is_free(queue: Queue) -> None:
    running = [queue.add() for _ in range(THREADS)]
    patient, hurried, later = queue.add(), queue.add(budget=0.5), queue.add(budget=2.0)
    queue.clock.now += 0.4
    queue.end()
    assert hurried.state == "waits"
    assert queue.calls.seconds_to_wait(1.0) == pytest.approx(0.1)
    queue.clock.now += 0.2
    queue.end()
    assert [entry.state for entry in (patient, hurried, later)] == ["waits", "expired", "waits"]
    queue.clock.now += 2.0
    queue.end(running[0])
    assert [entry.state for entry in (patient, later)] == ["runs", "expired"]
    assert queue.calls.seconds_to_wait(1.0) == 1.0


def test_a_cancelled_request_is_no_backlog_and_never_begins(queue: Queue) -> None:
    teach(queue, 2.0)
    running = [queue.add() for _ in range(THREADS)]
    waiting = [queue.add() for _ in range(2)]
    waiting[0].queue.cancel(waiting[0])
    assert queue.calls.backlog_seconds == pytest.approx(2.0 / THREADS)
    queue.end(*running)
    assert [entry.state for entry in waiting] == ["waits", "runs"]
    queue.end(waiting[1])
    assert not queue.calls.is_busy


def test_those_that_wait_and_run_are_in_flight(queue: Queue) -> None:
    queue.calls["slow"].mean_in_flight()
    running = [queue.add() for _ in range(THREADS + 2)]
    queue.clock.now += 1.0
    assert queue.calls.mean_in_flight() == pytest.approx(6)
    queue.end(*running[:THREADS])
    queue.clock.now += 1.0
    assert queue.calls.mean_in_flight() == pytest.approx(2)


def states(entries: list[Entry]) -> list[str]:
    return [entry.state for entry in entries]


def test_another_queue_begins_with_the_next_thread(queue: Queue) -> None:
    flood = [queue.add() for _ in range(THREADS * 3)]
    other = [queue.add(name="other") for _ in range(3)]
    assert states(other) == ["waits"] * 3, "all threads were taken before it was known"
    queue.end(flood[0])
    assert states(other) == ["runs", "waits", "waits"]
    queue.end(flood[1])
    assert states(other) == ["runs", "runs", "waits"], "each has half of the threads"
    queue.end(flood[2])
    assert states(flood).count("runs") == 2, "they go on in turn"
    assert states(other) == ["runs", "runs", "waits"]


def test_no_queue_gets_the_last_thread_for_a_further_call_where_there_are_others(
    queue: Queue,
) -> None:
    queue.end(queue.add(name="other"))
    flood = [queue.add() for _ in range(THREADS * 3)]
    assert states(flood).count("runs") == THREADS - 1
    other = [queue.add(name="other") for _ in range(2)]
    assert states(other) == ["runs", "waits"]
    third = queue.add(name="third")
    queue.end(flood[0])
    assert states([*other, third]) == ["runs", "waits", "runs"]


def test_one_thread_serves_all_queues_in_turn(queue: Queue) -> None:
    queue.pool.max_threads = 1
    running, *flood = [queue.add() for _ in range(9)]
    queue.clock.now += 1.0
    other = [queue.add(name="other") for _ in range(2)]
    queue.end(running)
    for entry in flood:
        assert entry.state == "runs"
        queue.end(entry)
    assert states(other) == ["runs", "waits"]


def test_a_queue_learns_its_own_costs_and_only_its_own_backlog_is_waited_for(queue: Queue) -> None:
    teach(queue, 8.0)
    flood = [queue.add() for _ in range(THREADS * 3)]
    assert flood[0].queue.backlog_seconds == pytest.approx(8 * 8.0 / THREADS)
    assert queue.add(budget=1.0).state == "rejected"
    hurried = queue.add(budget=1.0, name="other")
    assert hurried.state == "waits"
    queue.end(flood[0])
    assert hurried.state == "runs"
    queue.end(*flood[1:], hurried)


class Thing:
    """What a call holds."""


def run_one(pool: CallPool, woken: threading.Event, work: Callable[[], None]) -> Call:
    woken.clear()
    pool.start(Call(QueueEntry(0.0), work, None, 0.0))
    assert woken.wait(60)
    (call,) = pool.take_ended()
    return call


def test_threads_are_made_for_calls_and_keep_nothing_of_them() -> None:
    woken = threading.Event()
    calls = CallPool(2, woken.set)
    before = threading.active_count()
    thing = Thing()
    known = weakref.ref(thing)

    def use(thing: Thing) -> None:
        raise ValueError(thing)

    call = run_one(calls, woken, lambda thing=thing: use(thing))  # type: ignore[misc]
    assert isinstance(call.error, ValueError)
    assert threading.active_count() == before + 1
    del call, thing
    gc.collect()
    assert known() is None
    run_one(calls, woken, lambda: None)
    assert threading.active_count() <= before + 2
    assert (calls.running, calls.oldest_at) == (0, None)


def test_a_call_is_made_here_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    names: list[str] = []
    calls = CallPool(2, lambda: None)
    calls.start(
        Call(QueueEntry(0.0), lambda: names.append(threading.current_thread().name), None, 0.0)
    )
    assert len(list(calls.take_ended())) == 1
    assert names == [threading.current_thread().name]


def test_one_that_is_cancelled_after_it_was_found_overdue_is_left_alone(queue: Queue) -> None:
    """As when the first of them, rejected, makes room by the memory of the next."""
    for _ in range(THREADS):
        queue.add()
    first, second = queue.add(budget=1), queue.add(budget=1)

    given: list[QueueEntry] = []

    def expire(entry: QueueEntry) -> None:
        given.append(entry)
        second.queue.cancel(second)

    queue.calls._advance = expire
    queue.clock.now += 2
    queue.calls.step(lambda entry, error: None)
    assert given == [first]
    assert second.queue.backlog_seconds == 0
