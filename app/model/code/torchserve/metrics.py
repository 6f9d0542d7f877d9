"""The metrics that a handler of TorchServe reports (``context.metrics``).

What it counts becomes a counter of the bundle; times, sizes and percentages are not kept.
"""

from __future__ import annotations

import enum
import re
from contextlib import suppress
from typing import Any

from ..bundle_access import HandlerBundle


class MetricTypes(enum.Enum):
    """The kinds of metrics (``ts.metrics.metric_type_enum``)."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Dimension:
    """A label of a metric (``ts.metrics.dimension``)."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value


class Metric:
    """A metric; only counters are counted."""

    def __init__(self, bundle: HandlerBundle, name: str, kind: MetricTypes) -> None:
        self._bundle = bundle
        self.metric_name, self.metric_type = name, kind

    def add_or_update(self, value: float, *args: Any, **kwargs: Any) -> None:
        if self.metric_type is MetricTypes.COUNTER:
            name = re.sub(r"[^A-Za-z0-9_]", "_", self.metric_name)[:64]
            with suppress(ValueError, TypeError):  # a metric must not fail a prediction
                self._bundle.counter(name).inc(value)

    update = add_or_update


class Metrics:
    """The metrics of one handler, by their names."""

    def __init__(self, bundle: HandlerBundle) -> None:
        self._bundle = bundle
        self.cache: dict[str, Metric] = {}
        self.request_ids: Any = None

    def set_request_ids(self, request_ids: Any) -> None:
        self.request_ids = request_ids

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str = "count",
        dimension_names: Any = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
        **more: Any,
    ) -> Metric:
        return self.cache.setdefault(metric_name, Metric(self._bundle, metric_name, metric_type))

    def get_metric(
        self, metric_name: str, metric_type: MetricTypes = MetricTypes.COUNTER
    ) -> Metric:
        return self.add_metric_to_cache(metric_name, metric_type=metric_type)

    def add_metric(
        self,
        name: str,
        value: float,
        unit: str = "",
        *args: Any,
        metric_type: MetricTypes = MetricTypes.COUNTER,
        **kwargs: Any,
    ) -> None:
        self.get_metric(name, metric_type).add_or_update(value)

    def add_counter(self, name: str, value: float, *args: Any, **kwargs: Any) -> None:
        self.get_metric(name).add_or_update(value)

    def add_error(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        self.get_metric(name).add_or_update(1)

    def add_time(self, name: str, value: float, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the service measures how long requests take."""

    add_size = add_percent = add_time
