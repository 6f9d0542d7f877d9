"""Metrics like those of `prometheus_client`, counted in memory that the workers share.

Counting is an addition to a value in the slab of this process, which is looked up once for each set
of labels. Every process can read the slabs of all and return the sums.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import inf, isnan
from operator import add
from threading import Lock, RLock
from typing import Generic, Literal, TypeVar
from weakref import WeakSet
from zlib import crc32

import orjson
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from .slabs import Record, SlabMemory

log = logging.getLogger("lantern.metrics")

Labels = tuple[str, ...]
Totals = dict[Labels, list[float]]
"""The values of one metric over all processes, by the values of its labels."""
Mode = Literal["livesum", "livemax", "liveall", "max"]

_registries: WeakSet[Registry] = WeakSet()


class Registry:
    """The metrics of one application, and the slab in which this process counts them.

    It begins with private memory. After `share`, every process that is forked and calls `attach`
    has a slab of the shared memory, and collects the sums over all.

    What every request counts is added to ``values`` directly, at the ``place`` of each series, by a
    thread that has the lock ``counting``, because an addition is not atomic. (``with`` would take
    longer than the additions.) Series are looked up before: that may log, and where a line of the
    log is dropped, it is counted by a thread that has the lock of a handler.
    """

    def __init__(self) -> None:
        self.families: dict[str, Family[Series]] = {}
        self._series: list[Series] = []
        self._shared: SlabMemory | None = None
        self._use(SlabMemory.private())
        _registries.add(self)

    def share(self, memory: SlabMemory) -> None:
        """Count in ``memory`` from now on; call it before the fork."""
        self._shared = memory
        self._use(memory)

    def attach(self) -> None:
        """Count in a slab of the shared memory; call it after the fork."""
        assert self._shared is not None
        self._use(self._shared)

    def pass_on(self, environ: dict[str, str]) -> None:
        """Pass the shared memory on to the program that this process is about to execute.

        ``environ`` is that program's environment.
        """
        assert self._shared is not None
        self._shared.pass_on(environ)

    def detach(self) -> None:
        """Count in private memory, in a process that was just forked: the slab is its parent's."""
        if self._shared is not None:
            self._shared.disown()
            self._use(SlabMemory.private())
        else:  # its memory is a copy
            self._use(self._memory)

    def _use(self, memory: SlabMemory) -> None:
        self._memory = memory
        slab = memory.claim()
        if slab is None:
            log.error(
                "Too many processes: the metrics don't include this one. Start fewer workers "
                "(server.workers).",
                extra={"limit": memory.slots},
            )
        slab = self._slab = slab or SlabMemory.private().claim()
        assert slab is not None
        self.values = slab.floats
        self._is_full = False
        # New locks: a thread that did not survive a fork may have held the old ones.
        self.adding = RLock()  # reentrant, because a line logged meanwhile may be counted
        self.counting = Lock()
        for series in self._series:
            self._place(series)

    def add(self, series: Series) -> None:
        """Count ``series`` from now on; under the lock ``adding``."""
        self._series.append(series)
        self._place(series)

    def _place(self, series: Series) -> None:
        family, slab = series.family, self._slab
        assert slab is not None
        place = slab.place(series.key, family.width, live=family.is_live)
        series.move(slab.floats, slab.spare if place is None else place, self.counting)
        if place is None and not self._is_full:
            self._is_full = True
            log.error(
                "The metrics memory of this process is full: new series are not counted, existing "
                "ones are. This is logged once.",
                extra={"metric": family.name, "series": len(self._series)},
            )

    def totals(self) -> dict[str, Totals]:
        """Return the values of each metric that has any, merged over all processes."""
        totals: dict[str, Totals] = {}
        for record in self._memory.records():
            name, form, *labels = orjson.loads(record.key)
            family = self.families.get(name)
            # During an upgrade, another master may run code with other metrics.
            if family is not None and family.form == form:
                family.merge(totals.setdefault(name, {}), tuple(labels), record)
        return totals

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as `prometheus_client.generate_latest` expects of a registry."""
        totals = self.totals()
        for name, family in self.families.items():
            if family.is_exposed and totals.get(name):
                yield family.to_metric(totals[name])


class Series:
    """The values of one set of labels, in the slab of this process."""

    __slots__ = ("_lock", "_values", "family", "key", "place")

    def __init__(self, family: Family[Series], labels: Labels) -> None:
        self.family = family
        self.key = orjson.dumps([family.name, family.form, *labels])

    def move(self, values: memoryview[float], place: int, lock: Lock) -> None:
        """Count in ``values``, at ``place``, from now on."""
        self._values, self.place, self._lock = values, place, lock


class CounterSeries(Series):
    """A sum that never decreases."""

    __slots__ = ()

    def inc(self, amount: float = 1) -> None:
        """Add ``amount``. Raises `ValueError` if it is negative or not finite."""
        if not 0 <= amount < inf:
            raise ValueError(f"a counter can't be increased by {amount}")
        with self._lock:
            self._values[self.place] += amount


class GaugeSeries(Series):
    """A value that can go up and down."""

    __slots__ = ()

    def set(self, value: float) -> None:
        """Set the value."""
        self._values[self.place] = value

    def get(self) -> float:
        """Return the value in this process, 0 if it was never set."""
        value = self._values[self.place]
        return 0.0 if isnan(value) else value

    def inc(self, amount: float = 1) -> None:
        """Add ``amount``, which may be negative."""
        with self._lock:
            self._values[self.place] = self.get() + amount


class HistogramSeries(Series):
    """The sum of the observations, and their number in each bucket."""

    __slots__ = ("_bounds",)

    def __init__(self, family: Family[Series], labels: Labels) -> None:
        super().__init__(family, labels)
        assert isinstance(family, Histogram)
        self._bounds = family.bounds

    def observe(self, amount: float) -> None:
        """Add an observation."""
        with self._lock:
            self._values[self.place] += amount
            self._values[self.bucket(amount)] += 1

    def bucket(self, amount: float) -> int:
        """Return the place of the number of observations like ``amount``."""
        return self.place + 1 + bisect_left(self._bounds, amount)


S_co = TypeVar("S_co", bound=Series, covariant=True)


class Family(ABC, Generic[S_co]):
    """A metric: a name, a help text, and a series for each set of labels."""

    width = 1
    """The number of values of a series."""
    is_live = False
    """True if its values are dropped when their process ends."""
    is_exposed = True
    _details: object = None
    """Anything that, beside the kind and the labels, determines the meaning of the values."""
    _series: type[S_co]

    def __init__(
        self, name: str, help: str, labelnames: Sequence[str] = (), *, registry: Registry
    ) -> None:
        self.name, self.help, self.labelnames = name, help, tuple(labelnames)
        self.form = crc32(repr((type(self).__name__, self.labelnames, self._details)).encode())
        self._registry = registry
        self._known: dict[Labels, S_co] = {}
        assert name not in registry.families
        registry.families[name] = self

    def labels(self, *values: object) -> S_co:
        """Return the series with these values of the labels; keep it if you count often."""
        labels = tuple(map(str, values))
        with self._registry.adding:
            series = self._known.get(labels)
            if series is None:
                if len(labels) != len(self.labelnames):
                    raise ValueError(f"{self.name} has the labels {self.labelnames}, not {labels}")
                series = self._known[labels] = self._series(self, labels)
                self._registry.add(series)
            return series

    def totals(self) -> Totals:
        """Return the values, merged over all processes."""
        return self._registry.totals().get(self.name, {})

    def merge(self, totals: Totals, labels: Labels, record: Record) -> None:
        """Add the values of one process to ``totals``."""
        known = totals.get(labels)
        totals[labels] = record.values if known is None else list(map(add, known, record.values))

    @abstractmethod
    def to_metric(self, totals: Totals) -> Metric:
        """Return the metric as `prometheus_client` represents it."""


class Counter(Family[CounterSeries]):
    """A sum that never decreases, not even when processes end."""

    _series = CounterSeries

    def to_metric(self, totals: Totals) -> Metric:
        metric = CounterMetricFamily(self.name, self.help, labels=self.labelnames)
        for labels, (value,) in totals.items():
            metric.add_metric(labels, value)
        return metric


class Histogram(Family[HistogramSeries]):
    """Observations counted in buckets; ``buckets`` are their upper bounds."""

    _series = HistogramSeries

    def __init__(
        self,
        name: str,
        help: str,
        labelnames: Sequence[str] = (),
        *,
        buckets: Sequence[float],
        registry: Registry,
    ) -> None:
        self.bounds = self._details = (*map(float, buckets), inf)
        self.width = 1 + len(self.bounds)
        super().__init__(name, help, labelnames, registry=registry)

    def to_metric(self, totals: Totals) -> Metric:
        metric = HistogramMetricFamily(self.name, self.help, labels=self.labelnames)
        for labels, (total, *counts) in totals.items():
            below = accumulate(counts)
            bounds = map(floatToGoString, self.bounds)
            metric.add_metric(labels, list(zip(bounds, below, strict=True)), total)
        return metric


class Gauge(Family[GaugeSeries]):
    """A value that can go up and down.

    ``multiprocess_mode`` is as in `prometheus_client`: how the values of several processes are
    merged. Those of "live..." are dropped when their process ends, and "liveall" has one per pid.
    """

    _series = GaugeSeries

    def __init__(
        self,
        name: str,
        help: str,
        labelnames: Sequence[str] = (),
        *,
        multiprocess_mode: Mode,
        registry: Registry,
        is_exposed: bool = True,
    ) -> None:
        self._mode = self._details = multiprocess_mode
        self.is_live = multiprocess_mode.startswith("live")
        self.is_exposed = is_exposed
        super().__init__(name, help, labelnames, registry=registry)

    def merge(self, totals: Totals, labels: Labels, record: Record) -> None:
        (value,) = record.values
        if isnan(value):  # never set
            return
        if self._mode == "livesum":
            super().merge(totals, labels, record)
        elif self._mode == "liveall" and record.pid is not None:
            totals[*labels, str(record.pid)] = [value]
        else:
            totals[labels] = [max(value, *totals.get(labels, [value]))]

    def to_metric(self, totals: Totals) -> Metric:
        names = (*self.labelnames, "pid")  # "pid" is left out if the labels have none
        metric = GaugeMetricFamily(self.name, self.help, labels=names)
        for labels, (value,) in totals.items():
            metric.add_metric(labels, value)
        return metric


def _after_fork() -> None:
    for registry in _registries:
        registry.detach()


os.register_at_fork(after_in_child=_after_fork)
