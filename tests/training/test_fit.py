"""Fitting: preprocessing takes the right statistics, and training repeats itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from training.data import FEATURE_NAMES, DataError, read_data
from training.fit import Recipe, fit_network, fit_preprocessing, predict

RECIPE = Recipe(epochs=3)


def test_the_same_seed_gives_the_same_weights_bit_for_bit(customers_csv: Path) -> None:
    """Two runs agree in every bit, whatever was drawn from torch's random state between them."""
    data = read_data(customers_csv)
    first = fit_network(data.features, data.labels, RECIPE, seed=1).state_dict()
    torch.rand(5)
    second = fit_network(data.features, data.labels, RECIPE, seed=1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = fit_network(data.features, data.labels, RECIPE, seed=2).state_dict()
    assert not torch.equal(first["classifier.0.weight"], other["classifier.0.weight"])


def test_fitting_leaves_torch_as_it_was(customers_csv: Path) -> None:
    """Random state, threads and determinism belong to the caller."""
    data = read_data(customers_csv)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    fit_network(data.features, data.labels, Recipe(epochs=1), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_preprocessing_gives_standard_scores(customers_csv: Path) -> None:
    """Imputed, clipped and logarithmic values have mean 0 and deviation 1; none is missing."""
    features = read_data(customers_csv).features
    scores = fit_preprocessing(features)(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scores.std(axis=0), 1, atol=1e-5)


def test_medians_are_of_raw_values(customers_csv: Path) -> None:
    """What stands in for a blank is the median of what was there, before any logarithm."""
    features = read_data(customers_csv).features
    steps = fit_preprocessing(features)
    np.testing.assert_array_equal(steps.impute.median.numpy(), np.nanmedian(features, axis=0))
    logarithmic = [FEATURE_NAMES[i] for i in torch.nonzero(steps.log1p.selected).flatten()]
    assert logarithmic == ["income"]


def test_ages_beyond_100_and_below_18_are_taken_as_those(customers_csv: Path) -> None:
    """A mistyped year of birth moves no probability further than a century does."""
    data = read_data(customers_csv)
    network = fit_network(data.features, data.labels, RECIPE, seed=1)
    rows = np.repeat(data.features[:1], 4, axis=0)
    rows[:, 0] = (100, 130, 18, -5)
    century, older, adult, unborn = predict(network, rows)
    assert (century, adult) == (older, unborn)


def test_a_constant_column_does_not_divide_by_zero(customers_csv: Path) -> None:
    """A feature that never varies contributes nothing rather than NaN."""
    features = read_data(customers_csv).features
    features[:, 2] = 5
    scores = fit_preprocessing(features)(torch.from_numpy(features))
    assert torch.isfinite(scores).all()


def test_rows_without_any_income_are_refused(customers_csv: Path) -> None:
    """A fold may hold only blanks of a column; it is named."""
    features = read_data(customers_csv).features
    features[:, 1] = np.nan
    with pytest.raises(DataError, match="no value in 'income'"):
        fit_preprocessing(features)


def test_training_learns_what_is_there_to_learn(customers_csv: Path) -> None:
    """Responders get higher probabilities than others, within [0, 1]."""
    data = read_data(customers_csv)
    probabilities = predict(
        fit_network(data.features, data.labels, Recipe(epochs=30), seed=1), data.features
    )
    assert probabilities[data.labels == 1].mean() > probabilities[data.labels == 0].mean() + 0.2
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
