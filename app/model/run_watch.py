"""The watch over runs of ONNX Runtime: one that takes too long is stopped.

One thread per process looks twice a second at which runs are still going on. A run costs two
additions for that: it has no timer, and reads no clock.
"""

from __future__ import annotations

import logging
import os
import threading
from math import inf
from time import monotonic
from typing import Any
from weakref import WeakSet

log = logging.getLogger("lantern.model")

_LOOK_SECONDS = 0.5
_EXIT_STATUS = 1


class ThreadRuns:
    """The runs of one thread in one runtime, of which one at a time is going on.

    ``count`` is odd while one is. ``options`` are those of each run: ONNX Runtime ends it, between
    two operations of the graph, once their ``terminate`` is true.
    """

    def __init__(self, seconds: float = inf) -> None:
        from onnxruntime import RunOptions

        self.seconds = seconds
        self.options: Any = RunOptions()
        self.count = 0
        self._seen = 0
        self._lasted = 0.0
        self._stopped = 0

    def look(self, seconds: float) -> float:
        """Return for how long the current run has been going on, and stop it if that is too long.

        ``seconds`` have passed since the last look. 0 if nothing runs.
        """
        count = self.count
        if count != self._seen or count % 2 == 0:
            self._seen, self._lasted = count, 0.0
            return 0.0
        self._lasted += seconds
        if self._lasted >= self.seconds and self._stopped != count:
            self._stopped = count
            self.options.terminate = True
        return self._lasted

    def renew(self) -> bool:
        """Replace options that `look` set; return True if it meant the run that is going on.

        It may have meant the one before, which ended at that moment.
        """
        from onnxruntime import RunOptions

        self.options = RunOptions()
        return self._stopped == self.count


class RunsByThread(threading.local):
    """The `ThreadRuns` of a runtime: ``here`` are those of the current thread."""

    def __init__(self, seconds: float = inf) -> None:
        self.here = ThreadRuns(seconds)
        if seconds < inf:
            _watch.add(self.here)


class _Watch:
    def __init__(self) -> None:
        self.exit_seconds = inf
        self._runs: WeakSet[ThreadRuns] = WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, runs: ThreadRuns) -> None:
        with self._lock:
            self._runs.add(runs)
            if self._thread is None or not self._thread.is_alive():  # also after a fork
                self._thread = threading.Thread(target=self._go, name="lantern-runs", daemon=True)
                self._thread.start()

    def _go(self) -> None:
        never = threading.Event()
        looked = monotonic()
        while not never.wait(_LOOK_SECONDS):
            # A process that was stopped, or had no core, must not blame its runs for that.
            passed, looked = min(monotonic() - looked, 2 * _LOOK_SECONDS), monotonic()
            with self._lock:
                runs = list(self._runs)
            longest = max((each.look(passed) for each in runs), default=0.0)
            del runs  # they belong to a model, which may be gone before the next look
            if longest >= self.exit_seconds:
                _exit(longest)


_watch = _Watch()


def exit_if_stuck(seconds: float) -> None:
    """End this process when a run has been going on for so many seconds.

    For workers whose master doesn't notice it: a single operation can't be stopped, and would
    keep a thread of the worker until it ends by itself.
    """
    _watch.exit_seconds = seconds


def _exit(seconds: float) -> None:
    log.critical(
        "a run of the network can't be stopped: this worker exits, and is replaced",
        extra={"seconds": round(seconds, 1)},
    )
    os._exit(_EXIT_STATUS)
