"""The shadow of a model: a candidate predicts what the stable version answered, unseen.

It runs on a thread of its own, behind a bounded queue: what it can't keep up with is dropped and
counted, and no caller waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.model.model import Model

MOST_BYTES = 16 << 20
"""How many bytes of rows and answers wait at most; what is more is dropped."""

log = logging.getLogger("lantern.shadow")

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate's answers beside those of the stable version, for the rows of one request.

    ``agreed`` rows have the same class; ``difference`` is the sum over the rows of the mean
    absolute difference of their probabilities; ``seconds`` is what the candidate took for all.
    ``dropped`` rows were not compared, and ``failed`` ones could not be.
    """

    stable: Model
    candidate: Model
    agreed: int = 0
    compared: int = 0
    difference: float = 0.0
    seconds: float = 0.0
    dropped: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class _Answered:
    stable: Model
    candidate: Model
    matrix: Matrix
    probabilities: Matrix

    @property
    def size(self) -> int:
        return self.matrix.nbytes + self.probabilities.nbytes


class Shadow:
    """Compares in the background; ``on_compare`` is told each comparison, and must not raise."""

    def __init__(self, on_compare: Callable[[Comparison], None]) -> None:
        self._on_compare = on_compare
        self._changed = threading.Condition()
        self._waiting: deque[_Answered] = deque()
        self._bytes = 0
        self._stopping = False
        self._failures: set[tuple[str, str, str]] = set()
        self._thread: threading.Thread | None = None

    def offer(self, stable: Model, candidate: Model, matrix: Matrix, probabilities: Matrix) -> None:
        """Have ``candidate`` predict the rows of ``matrix``, for which ``stable`` gave
        ``probabilities``; or drop them, if too many wait. Never raises.
        """
        if not len(matrix):
            return
        answered = _Answered(stable, candidate, matrix, probabilities)
        with self._changed:
            fits = self._bytes + answered.size <= MOST_BYTES and self._is_running()
            if fits:
                self._bytes += answered.size
                self._waiting.append(answered)
                self._changed.notify_all()
        if not fits:
            self._on_compare(Comparison(stable, candidate, dropped=len(matrix)))

    def wait(self, seconds: float) -> bool:
        """Wait until nothing waits to be compared; tell whether that came about in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._bytes, seconds)

    def stop(self, seconds: float) -> bool:
        """End, leaving what waits; tell whether the thread ended in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _is_running(self) -> bool:
        """Start the thread with the first rows, because no fork takes one along."""
        if self._thread is None and not self._stopping:
            thread = threading.Thread(target=self._run, name="lantern-shadow", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # there are too many threads; there may be fewer later
                return False
            self._thread = thread
        return not self._stopping

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                answered = self._waiting.popleft()
            size = answered.size
            comparison = self._compared(answered)
            self._on_compare(comparison)
            del answered, comparison  # or a model would live on as long as nothing comes
            with self._changed:
                self._bytes -= size
                self._changed.notify_all()

    def _compared(self, answered: _Answered) -> Comparison:
        stable, candidate = answered.stable, answered.candidate
        try:
            return compare(stable, candidate, answered.matrix, answered.probabilities)
        except Exception as error:
            failure = stable.version, candidate.version, type(error).__name__
            if failure not in self._failures:  # told once, not for every request
                self._failures.add(failure)
                log.exception("the shadow can't predict; told once")
            return Comparison(stable, candidate, failed=len(answered.matrix))


def compare(stable: Model, candidate: Model, matrix: Matrix, probabilities: Matrix) -> Comparison:
    """Run ``candidate`` on ``matrix`` (float32 ``(n, width)``, in the order of the stable version's
    features) and compare with its ``probabilities`` ``(n, classes)``.

    Features and classes are matched by name. Raises `ValueError` when the candidate has others, and
    what its runtime raises.
    """
    columns = [stable.encoder.names.index(name) for name in candidate.encoder.names]
    order = [candidate.classes.index(name) for name in stable.classes]
    if len(columns) != matrix.shape[1] or len(order) != len(candidate.classes):
        raise ValueError("the candidate has other features or classes")
    started = time.perf_counter()
    answers = candidate.runtime.run(np.ascontiguousarray(matrix[:, columns]))[:, order]
    seconds = time.perf_counter() - started
    finite = np.isfinite(answers).all(axis=1)
    answers, probabilities = answers[finite], probabilities[finite]
    return Comparison(
        stable,
        candidate,
        agreed=int((answers.argmax(axis=1) == probabilities.argmax(axis=1)).sum()),
        compared=len(answers),
        difference=float(np.abs(answers - probabilities).mean(axis=1).sum()),
        seconds=seconds,
        failed=int((~finite).sum()),
    )
