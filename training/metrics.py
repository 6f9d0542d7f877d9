"""Figures of probabilistic predictions against what came true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True)
class Metrics:
    """How good predictions are: the first two are better when higher, the others when lower.

    ``roc_auc`` and ``average_precision`` judge the order, ``brier`` and
    ``expected_calibration_error`` whether a probability means what it says.
    """

    roc_auc: float
    average_precision: float
    brier: float
    expected_calibration_error: float


def measure(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Metrics:
    """Compare ``probabilities`` of a response with ``labels`` of 0 and 1, both ``(n,)``.

    Both labels must occur.
    """
    return Metrics(
        float(roc_auc_score(labels, probabilities)),
        float(average_precision_score(labels, probabilities)),
        float(brier_score_loss(labels, probabilities)),
        expected_calibration_error(labels, probabilities),
    )


def expected_calibration_error(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], bins: int = CALIBRATION_BINS
) -> float:
    """Return the mean distance, over rows, of a bin's mean probability from its share of responses.

    Bins are ``bins`` equal parts of [0, 1]. Source: Naeini, Cooper and Hauskrecht, "Obtaining Well
    Calibrated Probabilities Using Bayesian Binning", AAAI 2015; of the probability of the
    positive class, not of the predicted one, because a campaign acts on the former.
    """
    bin_of = np.minimum((probabilities * bins).astype(int), bins - 1)  # 1.0 is in the last bin
    difference = np.bincount(bin_of, weights=probabilities - labels, minlength=bins)
    return float(np.abs(difference).sum() / len(labels))
