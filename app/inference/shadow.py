"""The shadow of a model: a candidate predicts what the stable version answered, unseen.

A separate thread predicts the rows in batches, and pauses after each so that it takes no more of
the processor than callers leave. Rows for which there is no time, the thread's or that of the
callers who hand them over, are dropped and counted. Each row of a round is dropped with the same
probability, so that the rows compared are representative. Waiting rows keep no model alive: those
of a version that is no longer served are dropped, too.
"""

from __future__ import annotations

import logging
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from math import log1p
from typing import Self
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from ..model.model import Model

MAX_BYTES = 16 << 20
"""The most bytes of rows and answers that wait."""

_COLLECT_SECONDS = 0.05
"""How long the first row waits for others to be predicted with it."""
_PASS_SECONDS = 0.002
"""The longest that one pass of the candidate should take: it holds a core until then."""
_ROUND_SECONDS = 1.0
"""The longest that the rows of a round should last, pauses included; then newer rows are due."""
_LEAST_SHARE = 0.005
"""The share of one core that the candidate gets, however busy the worker is.

A pass delays calls that arrive meanwhile: they should be fewer than one in a hundred.
"""
_MAX_SHARE = 0.5
"""The share that it gets if the worker is idle."""
_FIRST_GUESS = 1e-3
"""The seconds that a row is assumed to take, before one was predicted."""
_LEAST_ROWS = 64
_TIMED_SECONDS = 1.0
"""How often both versions are timed; less often if that would take over a hundredth of the time."""

log = logging.getLogger("lantern.shadow")

Matrix = NDArray[np.float32]
Probabilities = Matrix | Sequence[Sequence[float]]
"""Those of one row are cheaper as they are than as an array."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A stable version and a candidate: their names, and the models while something else holds
    them.
    """

    model: str
    stable: str
    candidate: str
    _stable: ref[Model]
    _candidate: ref[Model]

    @classmethod
    def of(cls, stable: Model, candidate: Model) -> Self:
        return cls(stable.name, stable.version, candidate.version, ref(stable), ref(candidate))

    def is_of(self, stable: Model, candidate: Model) -> bool:
        """Return True if these are the models."""
        return self._stable() is stable and self._candidate() is candidate

    def models(self) -> tuple[Model, Model] | None:
        """Return the models; None if one of them was replaced."""
        stable, candidate = self._stable(), self._candidate()
        return None if stable is None or candidate is None else (stable, candidate)


@dataclass(frozen=True, slots=True)
class ShadowResult:
    """A candidate's answers beside those of the stable version.

    ``agreed`` rows have the same class; ``difference`` is the sum over the compared rows of the
    mean absolute difference of their probabilities. ``dropped`` rows were not compared, and
    ``failed`` ones could not be.
    """

    agreed: int = 0
    compared: int = 0
    difference: float = 0.0
    dropped: int = 0
    failed: int = 0

    def __add__(self, other: ShadowResult) -> ShadowResult:
        names = [field.name for field in fields(self)]
        return ShadowResult(*(getattr(self, name) + getattr(other, name) for name in names))


@dataclass(frozen=True, slots=True)
class Timing:
    """The seconds that both versions took for the same single row; see `time_both`."""

    stable: float
    candidate: float


class ShadowObserver:
    """Receives the results of a shadow; no method may raise."""

    def compared(self, pair: Pair, result: ShadowResult) -> None:
        """Record a comparison, of versions that may be gone by now."""

    def timed(self, stable: Model, candidate: Model, timing: Timing) -> None:
        """Record how long both take for one row."""


class _Block:
    """Rows ``(n, width)`` with the stable version's probabilities ``(n, classes)``.

    Their bytes are appended to a buffer: an object for each request would cost callers more than
    the prediction of its row, and so would numpy's assignment to a slice.
    """

    def __init__(self, pair: Pair, width: int, classes: int) -> None:
        self.pair = pair
        self._width, self._classes = width, classes
        self._rows: array[float] = array("f")
        self._probabilities: array[float] = array("f")

    def __len__(self) -> int:
        return len(self._rows) // self._width

    @property
    def row_bytes(self) -> int:
        return 4 * (self._width + self._classes)

    @property
    def rows(self) -> Matrix:
        return np.frombuffer(self._rows, np.float32).reshape(-1, self._width)

    @property
    def probabilities(self) -> Matrix:
        return np.frombuffer(self._probabilities, np.float32).reshape(-1, self._classes)

    def add(self, rows: Matrix, probabilities: Probabilities) -> None:
        self._rows.frombytes(rows.tobytes())
        if isinstance(probabilities, np.ndarray):
            self._probabilities.frombytes(probabilities.tobytes())
        else:
            for each in probabilities:
                self._probabilities.extend(each)


class _Sample:
    """A sample of the rows that are added, of ``max_rows`` and `MAX_BYTES` at most.

    Each row is in it with the same probability, at first ``share``, whenever it came and however
    large its batch. If there are too many, each row is removed with a probability of one half, and
    later rows are admitted at half the rate (adaptive Bernoulli sampling).
    """

    def __init__(self, max_rows: int, random: np.random.Generator, share: float = 1.0) -> None:
        self._max_rows = max_rows
        self._random = random
        self._bytes = 0
        self.rows = 0
        self.is_empty = True
        self._blocks: dict[Pair, _Block] = {}
        self.dropped: Counter[Pair] = Counter()
        self._gap = 0
        self._set_share(share)

    @property
    def blocks(self) -> Iterable[_Block]:
        return self._blocks.values()

    @property
    def offered(self) -> int:
        """How many rows were added, the dropped ones included."""
        return self.rows + self.dropped.total()

    def skip(self, pair: Pair) -> bool:
        """Drop one row if it is not in the sample; return whether it was dropped.

        The number of rows until the next one to keep is drawn at once: a draw for each row would
        cost callers more.
        """
        self.is_empty = False
        if not self._gap:
            return False
        self._gap -= 1
        self.dropped[pair] += 1
        return True

    def add(self, pair: Pair, rows: Matrix, probabilities: Probabilities) -> None:
        """Add one row that `skip` did not drop, or those of several that are in the sample."""
        self.is_empty = False
        if len(rows) > 1:
            self._thin(pair, rows, np.asarray(probabilities, np.float32), self._share)
        else:
            self._gap = self._new_gap()
            self._keep(pair, rows, probabilities)
        while self.rows > self._max_rows or self._bytes > MAX_BYTES:
            before, self._blocks, self.rows, self._bytes = self._blocks, {}, 0, 0
            self._set_share(self._share / 2)
            for block in before.values():
                self._thin(block.pair, block.rows, block.probabilities, 0.5)

    def _set_share(self, share: float) -> None:
        self._share = share
        # The whole part of an exponential variable of this mean is a geometric variable.
        self._mean_gap = 0.0 if share == 1 else -1 / log1p(-share)
        self._gap = self._new_gap()

    def _new_gap(self) -> int:
        return int(self._random.standard_exponential() * self._mean_gap) if self._mean_gap else 0

    def _thin(self, pair: Pair, rows: Matrix, probabilities: Matrix, share: float) -> None:
        """Keep each row with a probability of ``share``."""
        if share == 1:
            self._keep(pair, rows, probabilities)
            return
        chosen = self._random.random(len(rows)) < share
        kept = int(np.count_nonzero(chosen))
        if kept:
            self._keep(pair, rows[chosen], probabilities[chosen])
        if kept < len(rows):
            self.dropped[pair] += len(rows) - kept

    def _keep(self, pair: Pair, rows: Matrix, probabilities: Probabilities) -> None:
        block = self._blocks.get(pair)
        if block is None:
            block = self._blocks[pair] = _Block(pair, rows.shape[1], len(probabilities[0]))
        block.add(rows, probabilities)
        self.rows += len(rows)
        self._bytes += len(rows) * block.row_bytes


class Shadow:
    """Compares in the background and reports to ``observer``.

    ``in_flight`` returns how many requests wait or are served in this process: the fewer there
    are, the more of the processor the candidate may have.
    """

    def __init__(
        self, observer: ShadowObserver, in_flight: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._observer = observer
        self._in_flight = in_flight
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._random = np.random.default_rng()
        self._seconds_a_row = _FIRST_GUESS
        self._seconds_to_hand_over = 0.0
        self._time_again_at = 0.0
        self._pairs: dict[str, Pair] = {}
        self._sample = self._new_sample()
        self._is_comparing = self._stopping = False
        self._failures: set[tuple[str, str, str]] = set()
        self._thread: threading.Thread | None = None

    def offer(
        self, stable: Model, candidate: Model, rows: Matrix, probabilities: Probabilities
    ) -> None:
        """Queue ``rows`` for ``candidate``, or drop some if there is no time for all.

        ``probabilities`` are the answers of ``stable``. Never raises, never blocks.
        """
        count = len(rows)
        if not count:
            return
        with self._lock:
            if self._is_running():
                pair, sample = self._pair_of(stable, candidate), self._sample
                if sample.is_empty:
                    self._changed.notify_all()
                # A busy worker drops nearly all rows, so this must be as cheap as possible.
                if count > 1 or not sample.skip(pair):
                    self._hand_over(sample, pair, rows, probabilities)
                return
        self._observer.compared(Pair.of(stable, candidate), ShadowResult(dropped=count))

    def _pair_of(self, stable: Model, candidate: Model) -> Pair:
        pair = self._pairs.get(stable.name)
        if pair is None or not pair.is_of(stable, candidate):
            pair = self._pairs[stable.name] = Pair.of(stable, candidate)
        return pair

    def _hand_over(
        self, sample: _Sample, pair: Pair, rows: Matrix, probabilities: Probabilities
    ) -> None:
        started, rows_before = time.perf_counter(), sample.rows
        sample.add(pair, rows, probabilities)
        if sample.rows > rows_before:
            taken = (time.perf_counter() - started) / (sample.rows - rows_before)
            self._seconds_to_hand_over = _smoothed(self._seconds_to_hand_over, taken)

    def wait(self, seconds: float) -> bool:
        """Wait until no rows are left to compare; return False if some are after the timeout."""
        with self._changed:
            return self._changed.wait_for(self._is_idle, seconds)

    def _is_idle(self) -> bool:
        return self._sample.is_empty and not self._is_comparing

    def stop(self, seconds: float) -> bool:
        """Stop, and drop waiting rows; return True if the thread ended in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _is_running(self) -> bool:
        """Start the thread with the first rows, because threads don't survive a fork."""
        if self._thread is None and not self._stopping:
            thread = threading.Thread(target=self._run, name="lantern-shadow", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # too many threads; try again later
                return False
            self._thread = thread
        return not self._stopping

    def _new_sample(self, offered_before: int = 0) -> _Sample:
        """Return an empty sample for the rows of the next round.

        ``offered_before``, the rows of the last round, determines the share to admit.
        """
        seconds = self._seconds_a_row + self._seconds_to_hand_over
        affordable = int(self._allowed_share() * _ROUND_SECONDS / seconds)
        max_rows = max(affordable, _LEAST_ROWS)
        return _Sample(max_rows, self._random, min(1.0, max_rows / max(1, offered_before)))

    def _allowed_share(self) -> float:
        return max(_LEAST_SHARE, _MAX_SHARE - self._in_flight())

    def _run(self) -> None:
        is_going_on = True
        while is_going_on:
            is_going_on = self._await_rows()
            with self._changed:
                sample = self._sample
                self._sample = self._new_sample(sample.offered)
                self._is_comparing = True
            self._compare_all(sample)
            del sample  # or its rows would stay in memory until more arrive
            with self._changed:
                self._is_comparing = False
                self._changed.notify_all()

    def _await_rows(self) -> bool:
        """Wait for rows, and briefly for more; return False to stop."""
        with self._changed:
            self._changed.wait_for(lambda: not self._sample.is_empty or self._stopping)
        return self._pause(_COLLECT_SECONDS)

    def _pause(self, seconds: float) -> bool:
        """Leave the processor to callers for ``seconds``; return False to stop."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._stopping, seconds)

    def _compare_all(self, sample: _Sample) -> None:
        """Compare the rows of ``sample``, in passes short enough not to delay callers.

        No model is held during the pauses, which are long if it is slow.
        """
        for pair, dropped in sample.dropped.items():
            self._observer.compared(pair, ShadowResult(dropped=dropped))
        for block in sample.blocks:
            done = 0
            while done < len(block):
                end = done + max(1, int(_PASS_SECONDS / self._seconds_a_row))
                rows, probabilities = block.rows[done:end], block.probabilities[done:end]
                spent = self._compare(block.pair, rows, probabilities)
                done += len(rows)
                if spent:
                    spent += len(rows) * self._seconds_to_hand_over
                    self._pause(spent * (1 / self._allowed_share() - 1))

    def _compare(self, pair: Pair, rows: Matrix, probabilities: Matrix) -> float:
        """Compare the rows of one pass; return the seconds spent, 0 if they were dropped."""
        models = pair.models()
        if models is None or self._stopping:
            self._observer.compared(pair, ShadowResult(dropped=len(rows)))
            return 0.0
        started = time.perf_counter()
        self._observer.compared(pair, self._compared(pair, models, rows, probabilities))
        taken = (time.perf_counter() - started) / len(rows)
        self._seconds_a_row = _smoothed(self._seconds_a_row, taken)
        if started >= self._time_again_at:
            self._time_one(pair, models, rows[:1])
        return time.perf_counter() - started

    def _compared(
        self, pair: Pair, models: tuple[Model, Model], rows: Matrix, probabilities: Matrix
    ) -> ShadowResult:
        """Compare; if the candidate fails, find the rows on which it fails."""
        try:
            return compare(*models, rows, probabilities)
        except Exception as error:
            self._log_once(pair, error)
            if len(rows) == 1 or isinstance(error, Incomparable):
                return ShadowResult(failed=len(rows))
        half = len(rows) // 2
        return self._compared(pair, models, rows[:half], probabilities[:half]) + self._compared(
            pair, models, rows[half:], probabilities[half:]
        )

    def _time_one(self, pair: Pair, models: tuple[Model, Model], row: Matrix) -> None:
        """Time both versions on one row, under the same conditions."""
        stable, candidate = models
        started = time.perf_counter()
        try:
            timing = time_both(stable, candidate, row)
        except Exception as error:
            self._log_once(pair, error)
        else:
            self._observer.timed(stable, candidate, timing)
        ended = time.perf_counter()
        self._time_again_at = ended + max(_TIMED_SECONDS, 100 * (ended - started))

    def _log_once(self, pair: Pair, error: Exception) -> None:
        failure = pair.stable, pair.candidate, type(error).__name__
        if failure not in self._failures:
            self._failures.add(failure)
            log.error("the shadow can't predict; logged once", exc_info=error)


def _smoothed(mean: float, value: float) -> float:
    """Return the running mean after ``value``: a delayed pass says little about the next."""
    if mean in (0.0, _FIRST_GUESS):
        return value
    return mean + 0.2 * (min(value, 4 * mean) - mean)


class Incomparable(ValueError):
    """The candidate has other features or classes than the stable version."""


def compare(stable: Model, candidate: Model, matrix: Matrix, probabilities: Matrix) -> ShadowResult:
    """Run ``candidate`` on ``matrix`` (float32 ``(n, width)``, in the order of the stable version's
    features) and compare with its ``probabilities`` ``(n, classes)``.

    Features and classes are matched by name. Raises `Incomparable` if the candidate has others, and
    what its runtime raises.
    """
    rows = _columns_for(stable, candidate, matrix)
    order = [candidate.classes.index(name) for name in stable.classes if name in candidate.classes]
    if not len(order) == len(candidate.classes) == len(stable.classes):
        raise Incomparable("the candidate has other classes")
    answers = candidate.runtime.run(rows)[:, order]
    finite = np.isfinite(answers).all(axis=1)
    answers, probabilities = answers[finite], probabilities[finite]
    return ShadowResult(
        agreed=int((answers.argmax(axis=1) == probabilities.argmax(axis=1)).sum()),
        compared=len(answers),
        difference=float(np.abs(answers - probabilities).mean(axis=1).sum()),
        failed=int((~finite).sum()),
    )


def time_both(stable: Model, candidate: Model, row: Matrix) -> Timing:
    """Return how long both versions take for ``row``, float32 ``(1, width)``; raises as `compare`.

    They take turns, and the shortest run counts: the first has cold caches, and other work of the
    machine may delay any of them.
    """
    runs = [
        (_seconds(stable, row), _seconds(candidate, _columns_for(stable, candidate, row)))
        for _ in range(3)
    ]
    return Timing(*map(min, zip(*runs, strict=True)))


def _seconds(model: Model, row: Matrix) -> float:
    started = time.perf_counter()
    model.runtime.run(row)
    return time.perf_counter() - started


def _columns_for(stable: Model, candidate: Model, matrix: Matrix) -> Matrix:
    """Return the columns of ``matrix`` in the order of the candidate's features."""
    names = stable.encoder.names
    columns = [names.index(name) for name in candidate.encoder.names if name in names]
    if not len(columns) == len(candidate.encoder.names) == matrix.shape[1]:
        raise Incomparable("the candidate has other features")
    return np.ascontiguousarray(matrix[:, columns])
