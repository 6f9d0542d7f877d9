"""Dynamic batching: rows that wait run together, in order, and nobody pays for another's fault."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.model import batching
from app.model import model as models
from app.model.batching import BatchingRuntime, Padding
from app.model.model import Model
from app.model.runtime import Runtime
from app.model.self_test import seconds_of_a_row
from app.model.signature import FEATURES, Tensors, row_count
from app.packing.network import parity_samples
from app.registry.loading import ModelSource, load_model
from tests.conftest import BUNDLE

Matrix = NDArray[np.float32]
WAIT = 120.0  # seconds until a test that hangs fails; none is decided by it otherwise


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody give up waiting because this machine is slow."""
    monkeypatch.setattr(batching, "_PATIENCE_SECONDS", WAIT)


class Poison(Exception):
    pass


class Stopped(BaseException):
    pass


def answer_of(runtime: Runtime, matrix: Matrix) -> Matrix:
    (answer,) = runtime.run({FEATURES: matrix}).values()
    return answer


class Doubling:
    """Answers twice its input. ``runs`` are the first columns of the passes, as they began.

    With ``gated`` each pass waits for `let_one_pass`. A value in ``raising`` fails its pass, and
    the rows of values in ``lost`` are left out.
    """

    name = "doubling"
    device = "nowhere"

    def __init__(self, *, gated: bool = False) -> None:
        self.runs: list[list[float]] = []
        self.raising: dict[float, BaseException] = {}
        self.lost: list[float] = []
        self.threads: list[int] = []
        self._began = threading.Semaphore(0)
        self._gate = threading.Semaphore(0)
        self._gated = gated

    def run(self, inputs: Tensors) -> Tensors:
        (matrix,) = inputs.values()
        values = matrix[:, 0].tolist()
        self.runs.append(values)
        self.threads.append(threading.get_ident())
        if self._gated:
            self._began.release()
            assert self._gate.acquire(timeout=WAIT)
        for value, error in self.raising.items():
            if value in values:
                raise error
        return {"twice": matrix[~np.isin(matrix[:, 0], self.lost)] * 2}

    def await_pass(self) -> None:
        """Wait until one more pass has begun."""
        assert self._began.acquire(timeout=WAIT)

    def let_pass(self, passes: int = 1) -> None:
        self._gate.release(passes)


class Caller(threading.Thread):
    """Calls ``runtime`` with ``values`` as one column; keeps what came back."""

    def __init__(self, runtime: BatchingRuntime, *values: float) -> None:
        super().__init__(daemon=True)
        self.matrix = np.array(values, dtype=np.float32)[:, np.newaxis]
        self.answer: Matrix | None = None
        self.error: BaseException | None = None
        self._runtime = runtime
        self.start()

    def run(self) -> None:
        try:
            self.answer = answer_of(self._runtime, self.matrix)
        except BaseException as error:
            self.error = error

    def end(self) -> Caller:
        self.join(WAIT)
        assert not self.is_alive(), "a caller hangs"
        return self

    def answered(self) -> bool:
        self.end()
        return self.answer is not None and np.array_equal(self.answer, self.matrix * 2)


class StoppingEvent(threading.Event):
    """Stops who waits for it, once ``stop`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.stop = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        assert self.stop.wait(WAIT)
        raise Stopped


class Queue:
    """A batching runtime whose network is busy with a first call, and callers in line behind it."""

    def __init__(self, max_rows: int = 100) -> None:
        self.network = Doubling(gated=True)
        self.runtime = BatchingRuntime(self.network, max_rows)
        self.first = Caller(self.runtime, 0)
        self.network.await_pass()

    def join(self, *values: float) -> Caller:
        """Add a caller and wait until it is in line, so that the order is certain."""
        waiting = len(self.runtime._line)
        caller = Caller(self.runtime, *values)
        until = time.monotonic() + WAIT
        while len(self.runtime._line) == waiting:
            assert time.monotonic() < until
            time.sleep(0.001)
        return caller

    def join_stoppable(self, *values: float) -> tuple[Caller, Callable[[], Caller]]:
        """Add a caller that never stops to wait; give it, and what stops its thread."""
        with patch("app.model.batching.Event", StoppingEvent):
            caller = self.join(*values)
        event = self.runtime._line[-1].woken
        assert isinstance(event, StoppingEvent)

        def stop() -> Caller:
            event.stop.set()
            return caller.end()

        return caller, stop

    def finish(self, *callers: Caller) -> list[list[float]]:
        """Let every pass through; give the passes after the first."""
        self.network.let_pass(100)
        for caller in (self.first, *callers):
            caller.end()
        return self.network.runs[1:]


def test_a_call_that_finds_the_runtime_free_runs_at_once_in_its_own_thread() -> None:
    network = Doubling()
    runtime = BatchingRuntime(network, 10)
    for values in ([1], [2, 3]):
        matrix = np.array(values, dtype=np.float32)[:, np.newaxis]
        assert np.array_equal(answer_of(runtime, matrix), matrix * 2)
    assert network.runs == [[1], [2, 3]]
    assert set(network.threads) == {threading.get_ident()}


def test_name_and_device_are_those_of_the_runtime_within() -> None:
    runtime = BatchingRuntime(Doubling(), 10)
    assert (runtime.name, runtime.device) == ("doubling", "nowhere")


def test_calls_that_wait_run_as_one_in_their_order() -> None:
    queue = Queue()
    callers = [queue.join(1), queue.join(2, 3), queue.join(4)]
    assert queue.finish(*callers) == [[1, 2, 3, 4]]
    assert all(caller.answered() for caller in callers)


def test_the_answer_of_a_common_pass_can_not_be_written_to() -> None:
    queue = Queue()
    callers = [queue.join(1), queue.join(2)]
    queue.finish(*callers)
    for caller in callers:
        assert caller.answer is not None
        assert not caller.answer.flags.writeable


def test_the_first_in_line_leads_and_then_hands_over() -> None:
    """What comes while it runs is the next one's work, not its."""
    queue = Queue()
    first, second = queue.join(1), queue.join(2)
    queue.network.let_pass()
    queue.network.await_pass()  # 1 and 2 run
    late = queue.join(3)
    assert queue.finish(first, second, late) == [[1, 2], [3]]
    assert queue.network.threads[1:] == [first.ident, late.ident]


@pytest.mark.parametrize(
    ("calls", "passes"),
    [
        ([[1], [2], [3], [4], [5]], [[1, 2, 3], [4, 5]]),
        ([[1, 2], [3, 4], [5]], [[1, 2], [3, 4, 5]]),  # 5 would fit, but 3 and 4 came before it
        ([[1], [2, 3, 4, 5], [6]], [[1], [2, 3, 4, 5], [6]]),  # more than the maximum: alone
        ([[1, 2, 3], [4]], [[1, 2, 3], [4]]),
    ],
)
def test_whole_calls_join_in_order_up_to_the_maximum(
    calls: list[list[float]], passes: list[list[float]]
) -> None:
    queue = Queue(max_rows=3)
    callers = [queue.join(*values) for values in calls]
    assert queue.finish(*callers) == passes
    assert all(caller.answered() for caller in callers)


def test_a_call_that_fails_alone_fails_no_other_in_its_pass() -> None:
    queue = Queue()
    queue.network.raising = {2: Poison()}
    callers = [queue.join(1), queue.join(2), queue.join(3), queue.join(4)]
    assert queue.finish(*callers) == [[1, 2, 3, 4], [1], [2], [3], [4]]
    assert [caller.answered() for caller in callers] == [True, False, True, True]
    assert isinstance(callers[1].error, Poison)


def test_nobody_gets_the_row_of_another_where_one_is_left_out() -> None:
    queue = Queue()
    queue.network.lost = [2]
    callers = [queue.join(1), queue.join(2), queue.join(3)]
    assert queue.finish(*callers) == [[1, 2, 3], [1], [2], [3]]
    assert [caller.answered() for caller in callers] == [True, False, True]


def test_after_a_failed_pass_calls_join_again() -> None:
    queue = Queue()
    queue.network.raising = {2: Poison()}
    callers = [queue.join(1), queue.join(2)]
    queue.network.let_pass()
    queue.network.await_pass()  # 1 and 2 run, and will fail
    callers += [queue.join(3), queue.join(4)]
    assert queue.finish(*callers) == [[1, 2], [1], [2], [3, 4]]


@pytest.mark.parametrize("error", [Poison(), Stopped()])
def test_a_call_that_fails_on_a_free_runtime_leaves_it_free(error: BaseException) -> None:
    network = Doubling()
    network.raising = {1: error}
    runtime = BatchingRuntime(network, 10)
    with pytest.raises(type(error)):
        answer_of(runtime, np.ones((1, 1), dtype=np.float32))
    assert Caller(runtime, 2).answered()


def test_a_leader_that_is_stopped_leaves_nobody_waiting() -> None:
    queue = Queue()
    queue.network.raising = {1: Stopped()}
    callers = [queue.join(1), queue.join(2), queue.join(3)]
    assert queue.finish(*callers) == [[1, 2, 3], [2, 3]]
    assert isinstance(callers[0].error, Stopped)
    assert [caller.answered() for caller in callers] == [False, True, True]


def test_a_waiting_caller_that_is_stopped_is_not_waited_for() -> None:
    queue = Queue()
    gone, stop = queue.join_stoppable(1)
    other = queue.join(2)
    stop()
    assert queue.finish(other) == [[2]]
    assert isinstance(gone.error, Stopped)
    assert other.answered()


def test_a_caller_that_is_stopped_when_it_should_lead_hands_over() -> None:
    queue = Queue()
    _, stop = queue.join_stoppable(1)
    other = queue.join(2)
    queue.network.let_pass()
    queue.first.end()  # the runtime is now the stopped one's to lead
    stop()
    assert queue.finish(other) == [[2]]
    assert other.answered()
    assert Caller(queue.runtime, 3).answered()


def test_a_caller_that_is_stopped_while_its_rows_run_is_not_put_back_in_line() -> None:
    queue = Queue()
    queue.network.raising = {2: Poison()}
    leader = queue.join(1)
    _, stop = queue.join_stoppable(2)
    queue.network.let_pass()
    queue.network.await_pass()  # 1 and 2 run, and will fail
    stop()
    other = queue.join(3)
    assert queue.finish(leader, other) == [[1, 2], [1], [3]]
    assert leader.answered()
    assert other.answered()


def test_who_wants_to_know_is_told_the_rows_of_each_pass() -> None:
    told: list[int] = []
    queue = Queue()
    queue.runtime.on_run = told.append
    callers = [queue.join(1), queue.join(2, 3)]
    queue.finish(*callers)
    assert told == [1, 3]


@settings(max_examples=30, deadline=None)
@given(
    calls=st.lists(st.integers(1, 9), min_size=1, max_size=40),
    max_rows=st.integers(1, 12),
    threads=st.integers(1, 16),
    seed=st.integers(0, 2**32 - 1),
)
def test_many_threads_get_the_answers_that_the_plain_runtime_gives(
    calls: list[int], max_rows: int, threads: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    matrices = [generator.normal(size=(rows, 3)).astype(np.float32) for rows in calls]
    network = Doubling()
    answers = answers_of(BatchingRuntime(network, max_rows), matrices, threads)
    for matrix, answer in zip(matrices, answers, strict=True):
        assert np.array_equal(answer, matrix * 2)
    assert sum(map(len, network.runs)) == sum(calls)
    assert all(len(run) <= max(max_rows, *calls) for run in network.runs)


def answers_of(runtime: Any, matrices: list[Matrix], threads: int) -> list[Matrix]:
    """Have ``threads`` threads, started together, run every matrix; give the answers in order."""
    answers: dict[int, Matrix] = {}
    together = threading.Barrier(threads)

    def work(first: int) -> None:
        together.wait(WAIT)
        for index in range(first, len(matrices), threads):
            answers[index] = answer_of(runtime, matrices[index])

    workers = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(WAIT)
        assert not worker.is_alive(), "a caller hangs"
    return [answers[index] for index in range(len(matrices))]


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_the_bundled_model_answers_sixteen_threads_as_it_answers_one(runtime: Any) -> None:
    plain = load_model(ModelSource(BUNDLE, runtime=runtime))
    batching = load_model(ModelSource(BUNDLE, runtime=runtime, batch_rows=64))
    assert isinstance(batching.runtime, BatchingRuntime)
    passes: list[int] = []
    batching.runtime.on_run = passes.append
    samples = parity_samples(plain.golden().inputs[FEATURES])
    matrices = np.array_split(samples, len(samples) // 2)
    answers = answers_of(batching.runtime, matrices, threads=16)
    for matrix, answer in zip(matrices, answers, strict=True):
        assert np.abs(answer - answer_of(plain.runtime, matrix)).max() <= 1e-5
    assert sum(passes) == len(samples)


def test_a_model_that_may_batch_tells_runtime_and_device_and_passes_its_self_test() -> None:
    model: Model = load_model(ModelSource(BUNDLE, batch_rows=8))
    model.self_test()
    assert (model.info()["runtime"], model.info()["device"]) == ("onnx", "cpu")


def test_without_the_setting_nothing_stands_before_the_runtime() -> None:
    assert not isinstance(load_model(ModelSource(BUNDLE)).runtime, BatchingRuntime)


def test_models_that_take_long_share_passes_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, shares in ((0.0, True), (math.inf, False)):
        monkeypatch.setattr(models, "LONG_SECONDS", seconds)
        model = load_model(ModelSource(BUNDLE, batch_rows="auto"))
        assert model.takes_long is shares
        assert isinstance(model.runtime, BatchingRuntime) is shares


def test_a_row_is_timed_a_few_times_at_most_and_once_if_it_was_quick() -> None:
    runtime, rows = Doubling(), {FEATURES: np.zeros((8, 2), dtype=np.float32)}
    least = seconds_of_a_row(runtime, rows, has_rows=True, enough=math.inf)
    assert 0 < least < math.inf
    assert runtime.runs == [[0.0]]
    seconds_of_a_row(runtime, rows, has_rows=False, enough=0.0)
    assert 2 <= len(runtime.runs) <= 6
    assert runtime.runs[1] == [0.0] * 8


def test_nobody_waits_for_a_pass_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_PATIENCE_SECONDS", 0.01)
    runtime = Doubling(gated=True)
    shared = BatchingRuntime(runtime, 8)
    rows = [np.full((1, 2), number, dtype=np.float32) for number in (1.0, 2.0)]
    answers: list[Matrix] = []
    threads = [
        threading.Thread(target=lambda row=row: answers.append(answer_of(shared, row)), daemon=True)
        for row in rows
    ]
    for thread in threads:
        thread.start()
        runtime.await_pass()  # of the second while the first goes on
    runtime.let_pass(2)
    for thread in threads:
        thread.join(WAIT)
    assert sorted(answer[0, 0] for answer in answers) == [2.0, 4.0]
    runtime.let_pass()
    assert answer_of(shared, rows[0])[0, 0] == 2.0


class Summing:
    """A network that adds up the tokens of each text; `texts` are those of each pass, filled up."""

    name, device = "summing", "nowhere"

    def __init__(self) -> None:
        self.texts: list[list[list[int]]] = []
        self.began, self.may_go_on = threading.Event(), threading.Event()

    def run(self, inputs: Tensors) -> Tensors:
        ids, mask = inputs["ids"], inputs["mask"]
        self.texts.append(ids.tolist())
        self.began.set()
        assert self.may_go_on.wait(WAIT)
        return {"sum": (ids * mask).sum(axis=1, keepdims=True)}

    def time_limit(self, seconds: float) -> AbstractContextManager[None]:
        raise NotImplementedError


def tokens(*texts: Sequence[int]) -> Tensors:
    ids = np.array(texts)
    return {"ids": ids, "mask": np.ones_like(ids)}


def passes_of(padding: Padding | None, *calls: Tensors) -> list[list[list[int]]]:
    """Return the passes in which ``calls`` run that wait for one before them."""
    network = Summing()
    runtime = BatchingRuntime(network, 10, padding)
    answers: dict[int, int] = {}

    def call(number: int, inputs: Tensors) -> None:
        answers[number] = runtime.run(inputs)["sum"].tolist()

    threads = []
    for number, inputs in enumerate((tokens([1]), *calls)):
        threads.append(threading.Thread(target=call, args=(number, inputs), daemon=True))
        threads[-1].start()
        if not number:
            assert network.began.wait(WAIT)
        else:
            until = time.monotonic() + WAIT
            while len(runtime._line) < number:
                assert time.monotonic() < until
                time.sleep(0.001)
    network.may_go_on.set()
    for thread in threads:
        thread.join(WAIT)
    assert [answers[n] for n in range(1, len(threads))] == [
        inputs["ids"].sum(axis=1, keepdims=True).tolist() for inputs in calls
    ]
    return network.texts[1:]


@pytest.mark.parametrize(
    ("is_before", "together"),
    [(False, [[1, 2, 3], [4, 5, 9], [6, 9, 9]]), (True, [[1, 2, 3], [9, 4, 5], [9, 9, 6]])],
)
def test_texts_of_different_lengths_run_together(
    is_before: bool, together: list[list[int]]
) -> None:
    padding = Padding({"ids": 9, "mask": 0}, is_before=is_before)
    assert passes_of(padding, tokens([1, 2, 3]), tokens([4, 5]), tokens([6])) == [together]


def test_without_padding_only_texts_of_one_length_run_together() -> None:
    passes = passes_of(None, tokens([1, 2]), tokens([3, 4]), tokens([5]))
    assert passes == [[[1, 2], [3, 4]], [[5]]]


def test_nobody_pays_for_a_text_that_is_much_longer() -> None:
    padding = Padding({"ids": 9, "mask": 0})
    long = list(range(1, 41))
    passes = passes_of(padding, tokens([1]), tokens([2]), tokens(long), tokens([3] * 20))
    assert passes == [[[1], [2]], [long, [3] * 20 + [9] * 20]]


class Timed(Doubling):
    """A network whose rows take as long together as one after the other, or all as long as one: by
    a clock of its own, which is `now`.
    """

    def __init__(self, *, is_shared: bool) -> None:
        super().__init__()
        self.is_shared = is_shared
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def run(self, inputs: Tensors) -> Tensors:
        time.sleep(0.001)  # others come and wait
        self.seconds += 1 if self.is_shared else row_count(inputs)
        return super().run(inputs)


@pytest.mark.parametrize("is_shared", [True, False])
def test_rows_share_passes_as_far_as_that_makes_them_cheaper(
    monkeypatch: pytest.MonkeyPatch, *, is_shared: bool
) -> None:
    network = Timed(is_shared=is_shared)
    monkeypatch.setattr(batching, "perf_counter", network.now)
    runtime = BatchingRuntime(network, 64, is_measured=True)
    sizes: list[int] = []
    runtime.on_run = sizes.append
    row = {FEATURES: np.ones((1, 2), dtype=np.float32)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: runtime.run(row), range(800)))
    assert sum(sizes) == 800
    assert max(sizes) == (8 if is_shared else 2)
    assert sizes.count(2) < 40
