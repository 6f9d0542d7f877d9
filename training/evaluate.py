"""Evaluation: cross-validation of the network and the baselines on the same folds.

Every model sees only the rows that a fold trains on, preprocessing included; no fold decides when
its training stops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from training.baselines import Predictor, fit_gradient_boosting, fit_logistic_regression
from training.data import LABEL, Data, DataError
from training.fit import Recipe, fit_network, predict
from training.metrics import Metrics, measure

NETWORK = "network"
MODELS = (NETWORK, "logistic regression", "gradient boosting")
METRIC_NAMES = tuple(field.name for field in fields(Metrics))


@dataclass(frozen=True, slots=True)
class Fold:
    """Row numbers, int ``(k,)``: those to train on and those to measure on."""

    train: NDArray[np.intp]
    test: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What cross-validation found, by name of the model (one of ``MODELS``).

    ``folds`` holds one `Metrics` a fold; ``probabilities`` holds, for every row of the data, the
    answer ``(n,)`` of the one model of its kind that was not trained on that row.
    """

    folds: Mapping[str, tuple[Metrics, ...]]
    probabilities: Mapping[str, NDArray[np.float64]]

    def mean(self, model: str, metric: str) -> float:
        """Return the mean of ``metric`` over the folds."""
        return float(np.mean(self._values(model, metric)))

    def spread(self, model: str, metric: str) -> float:
        """Return the standard deviation (of a sample) of ``metric`` over the folds."""
        return float(np.std(self._values(model, metric), ddof=1))

    def _values(self, model: str, metric: str) -> list[float]:
        return [getattr(metrics, metric) for metrics in self.folds[model]]


def make_folds(data: Data, count: int, seed: int) -> list[Fold]:
    """Split ``data`` into ``count`` stratified folds that keep identical rows together.

    Raises `DataError` when a class has too few different rows for that many folds.
    """
    for label in (0, 1):
        different = len(np.unique(data.groups[data.labels == label]))
        if different < count:
            raise DataError(
                f"{count} folds need {count} different rows or more where {LABEL!r} is {label}; "
                f"there are {different}."
            )
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return [
        Fold(train, test) for train, test in splitter.split(data.features, data.labels, data.groups)
    ]


def cross_validate(
    data: Data,
    recipe: Recipe,
    *,
    folds: int,
    seed: int,
    on_epoch: Callable[[], object] = lambda: None,
    on_fold: Callable[[int, Mapping[str, Metrics]], object] = lambda number, metrics: None,
) -> Evaluation:
    """Train and measure all of ``MODELS`` on each of the folds.

    ``on_epoch`` is called after each of the network's epochs, ``on_fold`` after each fold with its
    number (from 1) and the metrics by model. Raises `DataError` as `make_folds` does.
    """

    def fit(features: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> Predictor:
        network = fit_network(features, labels, recipe, seed, on_epoch)
        return lambda unseen: predict(network, unseen)

    fitters = dict(zip(MODELS, (fit, fit_logistic_regression, fit_gradient_boosting), strict=True))
    found: dict[str, list[Metrics]] = {model: [] for model in MODELS}
    probabilities = {model: np.full(len(data), np.nan) for model in MODELS}
    for number, fold in enumerate(make_folds(data, folds, seed), start=1):
        for model, fitter in fitters.items():
            predictor = fitter(data.features[fold.train], data.labels[fold.train], seed)
            probabilities[model][fold.test] = predictor(data.features[fold.test])
            found[model].append(measure(data.labels[fold.test], probabilities[model][fold.test]))
        on_fold(number, {model: metrics[-1] for model, metrics in found.items()})
    return Evaluation({model: tuple(metrics) for model, metrics in found.items()}, probabilities)
