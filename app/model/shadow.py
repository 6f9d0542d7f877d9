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

MOST_ROWS = 10_000
"""How many rows wait at most; more are dropped."""

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


class Shadow:
    """Compares in the background; ``on_compare`` is told each comparison, and must not raise."""

    def __init__(self, on_compare: Callable[[Comparison], None]) -> None:
        self._on_compare = on_compare
        self._changed = threading.Condition()
        self._waiting: deque[_Answered] = deque()
        self._rows = 0
        self._thread: threading.Thread | None = None

    def offer(self, stable: Model, candidate: Model, matrix: Matrix, probabilities: Matrix) -> None:
        """Have ``candidate`` predict the rows of ``matrix``, for which ``stable`` gave
        ``probabilities``; or drop them, if too many wait.
        """
        rows = len(matrix)
        with self._changed:
            fits = self._rows + rows <= MOST_ROWS
            if fits:
                self._rows += rows
                self._waiting.append(_Answered(stable, candidate, matrix, probabilities))
                self._changed.notify_all()
            if self._thread is None:  # not before the first: a fork leaves threads behind
                self._thread = threading.Thread(
                    target=self._run, name="lantern-shadow", daemon=True
                )
                self._thread.start()
        if not fits:
            self._on_compare(Comparison(stable, candidate, dropped=rows))

    def wait(self, seconds: float) -> bool:
        """Wait until nothing waits to be compared; tell whether that came about in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._rows, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                answered = self._waiting.popleft()
            rows = len(answered.matrix)
            try:
                comparison = compare(
                    answered.stable, answered.candidate, answered.matrix, answered.probabilities
                )
            except Exception:
                log.exception("the shadow can't predict")
                comparison = Comparison(answered.stable, answered.candidate, failed=rows)
            self._on_compare(comparison)
            del answered, comparison  # or a model would live on as long as nothing comes
            with self._changed:
                self._rows -= rows
                self._changed.notify_all()


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
    return Comparison(
        stable,
        candidate,
        agreed=int((answers.argmax(axis=1) == probabilities.argmax(axis=1)).sum()),
        compared=len(matrix),
        difference=float(np.abs(answers - probabilities).mean(axis=1).sum()),
        seconds=seconds,
    )
