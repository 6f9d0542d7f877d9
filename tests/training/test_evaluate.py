"""Cross-validation: nothing that is measured on was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.data import Data, DataError, read_data
from training.evaluate import MODELS, NETWORK, cross_validate, make_folds
from training.fit import Recipe, fit_network, predict


@pytest.fixture
def data(customers_csv: Path) -> Data:
    """Return the customers as arrays."""
    return read_data(customers_csv)


def test_folds_never_split_identical_rows(data: Data) -> None:
    """A row that repeats another is trained on with it or measured with it."""
    assert len(np.unique(data.groups)) < len(data)
    for fold in make_folds(data, 5, seed=0):
        assert not set(data.groups[fold.train]) & set(data.groups[fold.test])


def test_every_row_is_measured_once_in_folds_of_like_shares(data: Data) -> None:
    """The folds are a partition, and each has about as many responders as the whole."""
    folds = make_folds(data, 5, seed=0)
    measured = np.concatenate([fold.test for fold in folds])
    np.testing.assert_array_equal(np.sort(measured), np.arange(len(data)))
    shares = [data.labels[fold.test].mean() for fold in folds]
    np.testing.assert_allclose(shares, data.labels.mean(), atol=0.08)


def test_the_seed_decides_the_folds(data: Data) -> None:
    """The same seed cuts the same way, another cuts otherwise."""
    first, again, other = (make_folds(data, 5, seed=seed)[0].test for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


def test_too_few_rows_of_a_class_are_refused(data: Data) -> None:
    """Five folds need five different responders; repeats of one don't count."""
    rows = np.concatenate([np.flatnonzero(data.labels == 0), np.flatnonzero(data.labels)[[0] * 9]])
    few = Data(data.features[rows], data.labels[rows], data.groups[rows])
    with pytest.raises(DataError, match="'responded' is 1; there are 1"):
        make_folds(few, 5, seed=0)


def test_all_models_are_measured_on_the_same_rows(data: Data) -> None:
    """Each model gets a figure for each fold and one probability for each row."""
    epochs: list[None] = []
    seen: list[int] = []
    evaluation = cross_validate(
        data,
        Recipe(epochs=2),
        folds=3,
        seed=0,
        on_epoch=lambda: epochs.append(None),
        on_fold=lambda number, metrics: seen.append(number),
    )
    assert seen == [1, 2, 3]
    assert len(epochs) == 6
    for model in MODELS:
        assert len(evaluation.folds[model]) == 3
        assert np.isfinite(evaluation.probabilities[model]).all()
    aucs = [metrics.roc_auc for metrics in evaluation.folds[NETWORK]]
    assert evaluation.mean(NETWORK, "roc_auc") == pytest.approx(sum(aucs) / 3)
    assert evaluation.mean("logistic regression", "roc_auc") > 0.7


def test_a_fold_is_answered_by_a_network_that_never_saw_it(data: Data) -> None:
    """Its probabilities are those of a network fitted by hand on the other rows alone."""
    recipe = Recipe(epochs=2)
    fold = make_folds(data, 3, seed=0)[0]
    network = fit_network(data.features[fold.train], data.labels[fold.train], recipe, seed=0)
    evaluation = cross_validate(data, recipe, folds=3, seed=0)
    np.testing.assert_array_equal(
        evaluation.probabilities[NETWORK][fold.test], predict(network, data.features[fold.test])
    )
