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
from collections.abc import Callable

import numpy as np

from ..model.agreement import Incomparable
from ..model.model import Model
from ..model.predictions import Batch, Prediction
from ..model.signature import Tensors, row_count, select_rows
from .comparison import ShadowResult, Timing, compare, time_both
from .sample import Pair, Sample

_COLLECT_SECONDS = 0.05
"""Seconds for which the first row waits for others to be predicted with it."""
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
"""Seconds between two times that both versions are timed; less often if that would take over a
hundredth of the time."""

log = logging.getLogger("lantern.shadow")


class ShadowObserver:
    """Receives the results of a shadow; no method may raise."""

    def compared(self, pair: Pair, result: ShadowResult) -> None:
        """Record a comparison, of versions that may be gone by now."""

    def timed(self, stable: Model, candidate: Model, timing: Timing) -> None:
        """Record how long both take for one row."""


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
        self, stable: Model, candidate: Model, rows: Tensors, answer: Prediction | Batch
    ) -> None:
        """Queue ``rows`` for ``candidate``, or drop some if there is no time for all.

        ``answer`` is that of ``stable``. Never raises, never blocks.
        """
        count = row_count(rows)
        if not count:
            return
        with self._lock:
            if self._is_running():
                pair, sample = self._pair_of(stable, candidate), self._sample
                if sample.is_empty:
                    self._changed.notify_all()
                # A busy worker drops nearly all rows, so this must be as cheap as possible.
                if count > 1 or not sample.skip(pair):
                    self._hand_over(sample, pair, rows, answer)
                return
        self._observer.compared(Pair.of(stable, candidate), ShadowResult(dropped=count))

    def _pair_of(self, stable: Model, candidate: Model) -> Pair:
        pair = self._pairs.get(stable.name)
        if pair is None or not pair.is_of(stable, candidate):
            pair = self._pairs[stable.name] = Pair.of(stable, candidate)
        return pair

    def _hand_over(
        self, sample: Sample, pair: Pair, rows: Tensors, answer: Prediction | Batch
    ) -> None:
        started, rows_before = time.perf_counter(), sample.rows
        sample.add(pair, rows, answer.comparable())
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

    def _new_sample(self, offered_before: int = 0) -> Sample:
        """Return an empty sample for the rows of the next round.

        ``offered_before``, the rows of the last round, determines the share to admit.
        """
        seconds = self._seconds_a_row + self._seconds_to_hand_over
        affordable = int(self._allowed_share() * _ROUND_SECONDS / seconds)
        max_rows = max(affordable, _LEAST_ROWS)
        return Sample(max_rows, self._random, min(1.0, max_rows / max(1, offered_before)))

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

    def _compare_all(self, sample: Sample) -> None:
        """Compare the rows of ``sample``, in passes short enough not to delay callers.

        No model is held during the pauses, which are long if it is slow.
        """
        for pair, dropped in sample.dropped.items():
            self._observer.compared(pair, ShadowResult(dropped=dropped))
        for block in sample.blocks:
            rows, answers, done = block.rows, block.answers, 0
            while done < len(block):
                some = slice(done, done + max(1, int(_PASS_SECONDS / self._seconds_a_row)))
                part = select_rows(rows, some)
                spent = self._compare(block.pair, part, select_rows(answers, some))
                count = row_count(part)
                done += count
                if spent:
                    spent += count * self._seconds_to_hand_over
                    self._pause(spent * (1 / self._allowed_share() - 1))

    def _compare(self, pair: Pair, rows: Tensors, answers: Tensors) -> float:
        """Compare the rows of one pass; return the seconds spent, 0 if they were dropped."""
        models = pair.models()
        if models is None or self._stopping:
            self._observer.compared(pair, ShadowResult(dropped=row_count(rows)))
            return 0.0
        started = time.perf_counter()
        self._observer.compared(pair, self._compared(pair, models, rows, answers))
        taken = (time.perf_counter() - started) / row_count(rows)
        self._seconds_a_row = _smoothed(self._seconds_a_row, taken)
        if started >= self._time_again_at:
            self._time_one(pair, models, select_rows(rows, slice(1)))
        return time.perf_counter() - started

    def _compared(
        self, pair: Pair, models: tuple[Model, Model], rows: Tensors, answers: Tensors
    ) -> ShadowResult:
        """Compare; if the candidate fails, find the rows on which it fails."""
        count = row_count(rows)
        try:
            return compare(*models, rows, answers)
        except Exception as error:
            self._log_once(pair, error)
            if count == 1 or isinstance(error, Incomparable):
                return ShadowResult(failed=count)
        first, second = (
            self._compared(pair, models, select_rows(rows, half), select_rows(answers, half))
            for half in (slice(count // 2), slice(count // 2, None))
        )
        return first + second

    def _time_one(self, pair: Pair, models: tuple[Model, Model], row: Tensors) -> None:
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
