"""What a bundle says of its data: ranges, examples, and the points of its pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from training.data import FEATURE_NAMES, read_data
from training.describe import describe_features, golden_samples
from training.fit import Recipe, fit_network
from training.plots import quantile_shares, wilson_interval


def test_ranges_are_what_was_seen_without_mistyped_ages(
    customers: pd.DataFrame, customers_csv: Path
) -> None:
    """The range of age ends with the oldest plausible customer, not with a typing error."""
    by_name = {feature.name: feature for feature in describe_features(read_data(customers_csv))}
    plausible = customers.loc[customers["age"] <= 100, "age"]
    assert (by_name["age"].minimum, by_name["age"].maximum) == (plausible.min(), plausible.max())
    value = customers["avg_transaction_value"]
    described = by_name["avg_transaction_value"]
    assert (described.minimum, described.maximum) == (value.min(), value.max())
    assert described.nullable and not by_name["age"].nullable


def test_examples_are_typical_values_of_the_kind_that_was_seen(
    customers_csv: Path,
) -> None:
    """A count is shown as a whole number; every example lies in its range."""
    for feature in describe_features(read_data(customers_csv)):
        assert feature.minimum is not None
        assert feature.maximum is not None
        assert feature.example is not None
        assert feature.minimum <= feature.example <= feature.maximum
        if feature.name != "avg_transaction_value":
            assert feature.example.is_integer()


def test_golden_samples_cover_blanks_and_extremes(
    customers: pd.DataFrame, write: Callable[[pd.DataFrame], Path]
) -> None:
    """A null and values far outside are among them even when the data has none."""
    data = read_data(write(customers.dropna().query("age <= 100")))
    network = fit_network(data.features, data.labels, Recipe(epochs=1), seed=0)
    samples = golden_samples(data, network)
    assert samples.dtype == np.float32
    assert samples.shape == (8, len(FEATURE_NAMES))
    assert np.isnan(samples[:, FEATURE_NAMES.index("income")]).any()
    assert samples[:, FEATURE_NAMES.index("age")].max() > 100


def test_points_of_the_reliability_curve_are_tenths_of_the_rows() -> None:
    """Each point has as many rows, and its share of responses is counted in them."""
    probabilities = np.arange(100)[::-1] / 100
    labels = (probabilities >= 0.5).astype(int)
    predicted, observed, counts = quantile_shares(labels, probabilities)
    assert counts.tolist() == [10] * 10
    assert observed.tolist() == [0] * 5 + [1] * 5
    np.testing.assert_allclose(predicted, np.arange(10) / 10 + 0.045)


def test_intervals_of_shares_are_wilsons() -> None:
    """For 1 of 10 they are 1.8 % and 40.4 %; for none they begin at 0."""
    low, high = wilson_interval(np.array([0.1, 0.0]), np.array([10, 10]))
    np.testing.assert_allclose(low, [0.0179, 0.0], atol=1e-4)
    assert high[0] == pytest.approx(0.4042, abs=1e-4)
