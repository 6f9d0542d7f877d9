"""Statistics of requests for inference, for clients of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from time import time
from typing import Any, NamedTuple

from ..model.model import Model
from .metrics import harmless, log_once
from .registry import Counter, CounterSeries, Gauge, GaugeSeries, Registry, Totals

SUCCESS, FAIL, DECODE, RUN, ENCODE = "success", "fail", "decode", "run", "encode"
"""Parts of the time of requests: all of one that succeeded or failed, and its three stages."""


@dataclass(frozen=True, slots=True)
class VersionStatistics:
    """The statistics of one version, summed over all workers.

    ``counts`` and ``seconds`` are by the part of the time. ``rows`` is how many were predicted, and
    ``last_at`` when the last request was served, in seconds since 1970, or 0.
    """

    counts: Mapping[str, int]
    seconds: Mapping[str, float]
    rows: int
    last_at: float

    def document(self) -> dict[str, Any]:
        """Return them in Triton's form, whose times are in nanoseconds.

        Format: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
        """
        succeeded = self.counts.get(SUCCESS, 0)
        parts = {"compute_input": DECODE, "compute_infer": RUN, "compute_output": ENCODE}
        return {
            "last_inference": int(self.last_at * 1000),
            "inference_count": self.rows,
            "execution_count": succeeded,
            "inference_stats": {
                "success": self._duration(SUCCESS, succeeded),
                "fail": self._duration(FAIL, self.counts.get(FAIL, 0)),
                "queue": {"count": succeeded, "ns": 0},  # it waits before it is known to be one
                **{name: self._duration(part, succeeded) for name, part in parts.items()},
                "cache_hit": {"count": 0, "ns": 0},
                "cache_miss": {"count": 0, "ns": 0},
            },
            "batch_stats": [],
        }

    def _duration(self, part: str, count: int) -> dict[str, int]:
        return {"count": count, "ns": int(self.seconds.get(part, 0) * 1e9)}


class _Series(NamedTuple):
    """The counts of requests of one version that succeed: itself, its rows, when it was
    served, and the seconds of all of it and of its stages.
    """

    succeeded: CounterSeries
    rows: CounterSeries
    last: GaugeSeries
    seconds: CounterSeries
    decode: CounterSeries
    run: CounterSeries
    encode: CounterSeries


class InferenceStatistics:
    """Counts the requests for inference of each version of a model."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._requests = Counter(
            "lantern_inference_requests_total",
            "Requests for inference by the Open Inference Protocol, by version and result.",
            ["model", "version", "result"],
            registry=registry,
        )
        self._seconds = Counter(
            "lantern_inference_seconds_total",
            "Seconds of these requests, by version: of all that succeeded, of all that failed, and "
            "of the parts of those that succeeded.",
            ["model", "version", "part"],
            registry=registry,
        )
        self._rows = Counter(
            "lantern_inference_rows_total",
            "Rows predicted for these requests, by version.",
            ["model", "version"],
            registry=registry,
        )
        self._last = Gauge(
            "lantern_inference_last_seconds",
            "When the last of these requests was served, by version, in seconds since 1970.",
            ["model", "version"],
            multiprocess_mode="max",
            registry=registry,
        )

        self._series = cache(self._find_series)  # which takes longer than counting in them

    def succeeded(self, model: Model, rows: int, decode: float, run: float, encode: float) -> None:
        """Count a request that was served, with the seconds that its stages took."""
        try:
            series = self._series(model.name, model.version)
            values, lock = self._registry.values, self._registry.counting
            lock.acquire()
            try:
                values[series.succeeded.place] += 1
                values[series.rows.place] += rows
                values[series.last.place] = time()
                values[series.seconds.place] += decode + run + encode
                values[series.decode.place] += decode
                values[series.run.place] += run
                values[series.encode.place] += encode
            finally:
                lock.release()
        except Exception as error:
            log_once(error)

    @harmless
    def failed(self, model: Model, seconds: float) -> None:
        """Count a request that was rejected, or failed, after ``seconds``."""
        labels = model.name, model.version, FAIL
        self._requests.labels(*labels).inc()
        self._seconds.labels(*labels).inc(seconds)

    def _find_series(self, name: str, version: str) -> _Series:
        def of_part(part: str) -> CounterSeries:
            return self._seconds.labels(name, version, part)

        return _Series(
            succeeded=self._requests.labels(name, version, SUCCESS),
            rows=self._rows.labels(name, version),
            last=self._last.labels(name, version),
            seconds=of_part(SUCCESS),
            decode=of_part(DECODE),
            run=of_part(RUN),
            encode=of_part(ENCODE),
        )

    def of(self, model: Model) -> VersionStatistics:
        """Return the statistics of a version."""
        key = model.name, model.version
        counts = {part: int(n) for part, n in _of(self._requests.totals(), key).items()}
        return VersionStatistics(
            counts,
            _of(self._seconds.totals(), key),
            int(self._rows.totals().get(key, [0])[0]),
            self._last.totals().get(key, [0])[0],
        )


def _of(totals: Totals, key: tuple[str, str]) -> dict[str, float]:
    """Return the values of one version by their last label."""
    return {labels[2]: value for labels, (value,) in totals.items() if labels[:2] == key}
