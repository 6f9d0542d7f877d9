"""What is counted of predictions of one version: rows, classes or labels, values out of range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..model.model import Model
from .registry import Counter, CounterSeries, Registry

OTHERS = "(other)"
"""The label of all classes, or features, without a series of their own."""
NO_CLASS = ""
"""The label of what a model without classes or labels answers: a row for each row."""
MAX_SERIES = 100
"""The most classes or labels of a model, and features, with a series of their own."""


class VersionCounts:
    """The series of one version of a model, looked up once."""

    def __init__(
        self,
        registry: Registry,
        model: Model,
        rows: Counter,
        predictions: Counter,
        out_of_range: Counter,
    ) -> None:
        version = model.name, model.version
        classes = model.classes or model.manifest.labels
        self._has_classes = bool(classes)
        self._registry = registry
        self._rows = rows.labels(*version)
        self._classes = _SeriesByName(predictions, version, classes)
        self._features = _SeriesByName(out_of_range, version, model.encoder.names)

    def add(self, rows: int, classes: Mapping[str, int], outside: Mapping[str, int]) -> None:
        """Count predicted rows, those of each class or label, and values outside the range by
        feature.
        """
        if not self._has_classes:
            classes = {NO_CLASS: rows}
        of_class, of_feature = self._classes, self._features
        for name in classes:
            if name not in of_class:
                of_class.find(name)
        for name in outside:
            if name not in of_feature:
                of_feature.find(name)
        values, lock = self._registry.values, self._registry.counting
        lock.acquire()
        try:
            values[self._rows.place] += rows
            for name, times in classes.items():
                values[of_class[name].place] += times
            for name, times in outside.items():
                values[of_feature[name].place] += times
        finally:
            lock.release()


class _SeriesByName(dict[str, CounterSeries]):
    """The series of each of the first `MAX_SERIES` of ``names``, and one of all others: the same in
    every worker.
    """

    def __init__(self, counter: Counter, version: tuple[str, str], names: Sequence[str]) -> None:
        self._counter, self._version = counter, version
        self._others = frozenset(names[MAX_SERIES:])

    def find(self, name: str) -> None:
        """Look the series of a name up, which is kept."""
        label = OTHERS if name in self._others else name
        self[name] = self._counter.labels(*self._version, label)
