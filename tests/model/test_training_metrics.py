"""The figures of a training, however they are nested."""

from __future__ import annotations

from app.model.training_metrics import flatten, headline

TRAINING = {
    "rows": 1672,
    "seed": 0,
    "cross_validation": {
        "folds": 5,
        "roc_auc": {"mean": 0.8, "std": 0.03},
        "brier": {"mean": 0.1},
        "by_fold": [{"roc_auc": 0.7}],
    },
    "baselines": {"trees": {"accuracy": 0.9, "roc_auc": {"mean": 0.81}}},
    "f1": 0.5,
    "accuracy": "high",
}


def test_single_values_are_named_by_their_way() -> None:
    assert flatten(TRAINING) == {
        "rows": 1672,
        "seed": 0,
        "cross_validation.folds": 5,
        "cross_validation.roc_auc.mean": 0.8,
        "cross_validation.roc_auc.std": 0.03,
        "cross_validation.brier.mean": 0.1,
        "baselines.trees.accuracy": 0.9,
        "baselines.trees.roc_auc.mean": 0.81,
        "f1": 0.5,
        "accuracy": "high",
    }


def test_a_version_is_known_by_figures_of_its_own_and_in_one_order() -> None:
    assert list(headline(TRAINING).items()) == [("roc_auc", 0.8), ("f1", 0.5), ("brier", 0.1)]
    assert list(headline(TRAINING, most=1)) == ["roc_auc"]
    assert headline({"accuracy": 0.9, "test": {"accuracy": 0.8}}) == {"accuracy": 0.9}
    assert headline({"rows": 3}) == {}
