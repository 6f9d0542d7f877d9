"""The metrics of the service for Prometheus, summed over all workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from typing import ParamSpec

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ..inference.comparison import ShadowResult, Timing
from ..inference.sample import Pair
from ..inference.shadow import ShadowObserver
from ..model.batching import BatchingRuntime
from ..model.model import Model
from ..registry.rollout import Rollout
from ..registry.service import ModelObserver
from .registry import (
    Counter,
    CounterSeries,
    Gauge,
    GaugeSeries,
    Histogram,
    HistogramSeries,
    Mode,
    Registry,
)
from .version_counts import VersionCounts

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)

P = ParamSpec("P")
log = logging.getLogger("lantern.metrics")


def harmless(record: Callable[P, None]) -> Callable[P, None]:
    """Log the first failure of a kind to record a metric, so that no request fails for it."""

    @wraps(record)
    def recording(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            record(*args, **kwargs)
        except Exception as error:
            log_once(error)

    return recording


_logged: set[str] = set()


def log_once(error: Exception) -> None:
    """Log the first failure of a kind to record a metric."""
    kind = type(error).__name__
    if kind not in _logged:
        _logged.add(kind)  # first, because logging may fail in the same way
        log.error("recording a metric failed (logged once for each kind of error)", exc_info=True)


class Metrics(ModelObserver, ShadowObserver):
    """The metrics of one application in one process."""

    def __init__(self) -> None:
        self.registry = Registry()
        self._active: dict[str, list[GaugeSeries]] = {}
        self._declare_requests()
        self._declare_predictions()
        self._declare_releases()

    def _declare_requests(self) -> None:
        requests = self._counter(
            "lantern_http_requests_total",
            "Requests served, by method, route and status.",
            ["method", "route", "status"],
        )
        durations = self._histogram(
            "lantern_http_request_duration_seconds",
            "Seconds from the start of handling a request to its response, by route.",
            ["route"],
            buckets=_BUCKETS,
        )
        # Those of one request, by its labels
        self._served = cache(
            lambda method, route, status: (requests(method, route, status), durations(route))
        )
        self._rejected_requests = self._counter(
            "lantern_http_requests_rejected_total",
            "Requests rejected before any work was done because of overload, by reason.",
            ["reason"],
        )
        self._lines_dropped = self._counter(
            "lantern_log_lines_dropped_total",
            "Log lines that were dropped because they could not be written, by stream.",
            ["stream"],
        )
        self._in_flight = Gauge(
            "lantern_http_requests_in_flight",
            "Requests that are queued or served, averaged over the last second.",
            multiprocess_mode="livesum",
            registry=self.registry,
        ).labels()

    def _declare_predictions(self) -> None:
        rows = Counter(
            "lantern_predicted_rows_total",
            "Rows predicted, by model version.",
            ["model", "version"],
            registry=self.registry,
        )
        classes = Counter(
            "lantern_predictions_total",
            "Rows predicted, by model version and predicted class or label.",
            ["model", "version", "class"],
            registry=self.registry,
        )
        out_of_range = Counter(
            "lantern_features_out_of_range_total",
            "Feature values outside the training data's range, by model version and feature.",
            ["model", "version", "feature"],
            registry=self.registry,
        )
        self._of_version = rows, classes, out_of_range
        self._versions: dict[tuple[str, str], VersionCounts] = {}
        self._handler_events = self._counter(
            "lantern_handler_events_total",
            "What the handler of a model counts, by model version and the name of its counter.",
            ["model", "version", "counter"],
        )
        self._lookups = self._counter(
            "lantern_cache_lookups_total",
            "Rows looked up in the prediction cache, by model version and result.",
            ["model", "version", "result"],
        )
        self._cached_rows = self._gauge(
            "lantern_cache_rows",
            "Rows in the prediction cache, by model version, summed over the workers.",
            ["model", "version"],
            multiprocess_mode="livesum",
        )
        self._batch_rows = self._histogram(
            "lantern_batch_rows",
            "Rows per forward pass, if requests may share one, by model version.",
            ["model", "version"],
            buckets=_BATCH_BUCKETS,
        )

    def _declare_releases(self) -> None:
        self._load_seconds = self._gauge(
            "lantern_model_load_seconds",
            "Seconds taken to load the model, by worker and model version.",
            ["model", "version"],
            multiprocess_mode="liveall",
        )
        self._info = self._gauge(
            "lantern_model_info",
            "Loaded versions: 1 for each that is served, 0 for each that was.",
            ["model", "version", "runtime", "device", "role"],
            multiprocess_mode="livemax",
        )
        self._release_changes = self._counter(
            "lantern_release_changes_total",
            "Times that a worker began to serve a release, including its first.",
            ["model"],
        )
        self._rejected = self._gauge(
            "lantern_release_rejected",
            "1 if a worker can't serve the current release, by model.",
            ["model"],
            multiprocess_mode="livemax",
        )
        self._prediction_seconds = self._histogram(
            "lantern_prediction_duration_seconds",
            "Seconds per prediction, while there is a candidate beside the stable version.",
            ["model", "version"],
            buckets=_BUCKETS,
        )
        self._shadowed = self._counter(
            "lantern_shadow_rows_total",
            "Rows given to the shadow, by result: agreed, differed, failed or dropped.",
            ["model", "stable", "candidate", "result"],
        )
        self._difference = self._counter(
            "lantern_shadow_difference_total",
            "Sum over compared rows of the mean absolute difference of the numbers in the answers.",
            ["model", "stable", "candidate"],
        )

    # Each metric is kept as a cached function from labels to a series, because looking a series up
    # takes longer than counting with it. Labels have few values.

    def _counter(self, name: str, help: str, labels: Sequence[str]) -> Callable[..., CounterSeries]:
        return cache(Counter(name, help, labels, registry=self.registry).labels)

    def _gauge(
        self, name: str, help: str, labels: Sequence[str], *, multiprocess_mode: Mode
    ) -> Callable[..., GaugeSeries]:
        gauge = Gauge(
            name, help, labels, multiprocess_mode=multiprocess_mode, registry=self.registry
        )
        return cache(gauge.labels)

    def _histogram(
        self, name: str, help: str, labels: Sequence[str], *, buckets: Sequence[float]
    ) -> Callable[..., HistogramSeries]:
        return cache(Histogram(name, help, labels, buckets=buckets, registry=self.registry).labels)

    # What every request counts is written out: a wrapper, and a call for each series, would take
    # longer than counting.

    def request_served(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        try:
            requests, durations = self._served(method, route, status)
            bucket = durations.bucket(seconds)
            values, lock = self.registry.values, self.registry.counting
            lock.acquire()
            try:
                values[requests.place] += 1
                values[durations.place] += seconds
                values[bucket] += 1
            finally:
                lock.release()
        except Exception as error:
            log_once(error)

    @harmless
    def request_rejected(self, reason: str) -> None:
        """Count a request that was rejected because of overload."""
        self._rejected_requests(reason).inc()

    @harmless
    def in_flight(self, requests: float) -> None:
        """Set how many requests are queued or served in this process."""
        self._in_flight.set(requests)

    def current_in_flight(self) -> float:
        """Return how many requests are queued or served in this process, as last set."""
        return self._in_flight.get()

    @harmless
    def in_flight_changed(self, by: int) -> None:
        """Change the number of requests in flight by 1 or -1."""
        self._in_flight.inc(by)

    def predicted(
        self, model: Model, rows: int, labels: Mapping[str, int], outside: Mapping[str, int]
    ) -> None:
        """Count predicted rows, those of each class or label, and values outside the range by
        feature.
        """
        if not rows:
            return
        try:
            counts = self._versions.get((model.name, model.version))
            if counts is None:
                counts = VersionCounts(self.registry, model, *self._of_version)
                self._versions[model.name, model.version] = counts
            counts.add(rows, labels, outside)
        except Exception as error:
            log_once(error)

    @harmless
    def prediction_timed(self, model: Model, seconds: float) -> None:
        """Observe how long a prediction took, to compare the stable version and a candidate."""
        self._prediction_seconds(model.name, model.version).observe(seconds)

    @harmless
    def compared(self, pair: Pair, result: ShadowResult) -> None:
        """Count the results of a shadow beside the stable version."""
        labels = pair.model, pair.stable, pair.candidate
        for outcome, rows in (
            ("agreed", result.agreed),
            ("differed", result.compared - result.agreed),
            ("dropped", result.dropped),
            ("failed", result.failed),
        ):
            if rows:
                self._shadowed(*labels, outcome).inc(rows)
        if result.compared:
            self._difference(*labels).inc(result.difference)

    @harmless
    def timed(self, stable: Model, candidate: Model, timing: Timing) -> None:
        """Observe how long a shadow and the stable version take for one row."""
        self._prediction_seconds(stable.name, stable.version).observe(timing.stable)
        self._prediction_seconds(candidate.name, candidate.version).observe(timing.candidate)

    @harmless
    def cache_looked_up(self, model: Model, *, hit: bool, rows: int) -> None:
        """Count a lookup in the prediction cache, which now has ``rows``."""
        self._lookups(model.name, model.version, "hit" if hit else "miss").inc()
        if not hit:
            self._cached_rows(model.name, model.version).set(rows)

    @harmless
    def lines_dropped(self, stream: str, lines: int) -> None:
        """Count log lines that could not be written to ``stream``."""
        self._lines_dropped(stream).inc(lines)

    # As an observer of `ModelService`

    def loaded(self, model: Model, seconds: float) -> None:
        self._load_seconds(model.name, model.version).set(seconds)
        if isinstance(model.runtime, BatchingRuntime):
            model.runtime.on_run = harmless(self._batch_rows(model.name, model.version).observe)

        if model.handler is not None:
            labels = model.name, model.version
            model.handler.counters.connect(
                lambda counter: harmless(self._handler_events(*labels, counter).inc)
            )

    def served(self, rollout: Rollout) -> None:
        name = rollout.stable.name
        for gauge in self._active.pop(name, ()):  # including versions that are no longer loaded
            gauge.set(0)
        self._active[name] = [
            self._info(name, model.version, model.runtime.name, model.runtime.device, role)
            for role, model in zip(("stable", "candidate"), rollout.models, strict=False)
        ]
        for gauge in self._active[name]:
            gauge.set(1)
        for model in rollout.models:
            if model.cache is not None:
                cached_rows = self._cached_rows(name, model.version)
                cached_rows.set(len(model.cache))  # a promoted candidate keeps its cache
                self._active[name].append(cached_rows)
        self._release_changes(name).inc()

    def rejected(self, name: str, fault: str) -> None:
        self._rejected(name).set(1 if fault else 0)

    def exposition(self) -> bytes:
        """Return all metrics, summed over the workers, in Prometheus's text format.

        See https://prometheus.io/docs/instrumenting/exposition_formats/.
        """
        return generate_latest(self.registry)
