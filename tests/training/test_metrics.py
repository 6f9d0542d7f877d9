"""Figures: values that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.metrics import expected_calibration_error, measure


def test_perfect_calibration_has_no_error() -> None:
    """Of the rows told 0.2, a fifth respond; of those told 0.75, three quarters."""
    probabilities = np.repeat([0.2, 0.75], [10, 8])
    labels = np.array([1] * 2 + [0] * 8 + [1] * 6 + [0] * 2)
    assert expected_calibration_error(labels, probabilities) == pytest.approx(0, abs=1e-12)


def test_being_sure_of_the_opposite_has_the_greatest_error() -> None:
    """Probabilities of 0 and 1, each for the wrong rows, are off by 1; 1.0 has a bin."""
    labels = np.array([0, 0, 1, 1])
    assert expected_calibration_error(labels, 1.0 - labels) == 1.0
    assert expected_calibration_error(labels, labels.astype(float)) == 0.0


def test_errors_of_bins_weigh_as_many_as_their_rows() -> None:
    """Errors of opposite sign in different bins don't cancel out; in one bin they do."""
    labels = np.array([1, 0, 0, 0])
    different_bins = np.array([0.9, 0.3, 0.3, 0.3])
    assert expected_calibration_error(labels, different_bins) == pytest.approx((0.1 + 3 * 0.3) / 4)
    one_bin = np.array([0.25, 0.25, 0.25, 0.25])
    assert expected_calibration_error(labels, one_bin) == 0.0


def test_measures_agree_with_their_definitions() -> None:
    """Of the four pairs three are in order; precision is 1 at the first hit and 2/3 at the last."""
    metrics = measure(np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.5, 0.8]))
    assert metrics.roc_auc == 0.75
    assert metrics.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.brier == pytest.approx((0.01 + 0.36 + 0.25 + 0.04) / 4)
