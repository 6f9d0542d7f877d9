"""Baselines: what the network is compared with, on the same rows and the same preprocessing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from app.model.network import Preprocessing
from training.fit import fit_preprocessing

Predictor = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""Gives the probability of a response, ``(n,)``, for raw features ``(n, d)``."""


def fit_logistic_regression(
    features: NDArray[np.float32], labels: NDArray[np.int64], seed: int
) -> Predictor:
    """Fit a linear model: what can be had without any interaction of features."""
    return _fit(LogisticRegression(max_iter=1000, random_state=seed), features, labels)


def fit_gradient_boosting(
    features: NDArray[np.float32], labels: NDArray[np.int64], seed: int
) -> Predictor:
    """Fit boosted trees, the usual best on tables.

    Trees of 8 leaves and small steps: scikit-learn's defaults fit so few rows too closely, and a
    baseline that was not tried in earnest compares with nothing.
    """
    trees = HistGradientBoostingClassifier(
        learning_rate=0.05, max_leaf_nodes=8, early_stopping=False, random_state=seed
    )
    return _fit(trees, features, labels)


def _fit(
    estimator: LogisticRegression | HistGradientBoostingClassifier,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> Predictor:
    steps = fit_preprocessing(features)
    estimator.fit(_scores(steps, features), labels)

    def predict(features: NDArray[np.float32]) -> NDArray[np.float64]:
        probabilities: NDArray[np.float64] = estimator.predict_proba(_scores(steps, features))
        return probabilities[:, 1]

    return predict


def _scores(steps: Preprocessing, features: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        scores: NDArray[np.float32] = steps(torch.tensor(features)).numpy()
    return scores
