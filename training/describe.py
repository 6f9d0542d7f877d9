"""What a bundle says of the data and of the training, beside the weights."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from app.model.encoder import FeatureEncoder
from app.model.features import Feature
from app.model.network import Network
from app.model.reference import Reference
from app.model.signature import FEATURES as FEATURES_TENSOR
from app.packing.reference import make_reference
from training.data import CLASSES, FEATURE_NAMES, FEATURES, Data
from training.evaluate import METRIC_NAMES, MODELS, NETWORK, Evaluation
from training.fit import AGE_RANGE, Recipe, predict

_DIGITS = 4


def describe_features(data: Data) -> tuple[Feature, ...]:
    """Return the features with the range that ``data`` shows of each, and its median as example.

    Ages that the network clips are left out of the range of ages: they are mistyped, and the
    network learnt nothing of people so old.
    """
    described = []
    for feature, column in zip(FEATURES, data.features.T, strict=True):
        seen = column[~np.isnan(column)]
        if feature.name == "age":
            plausible = seen[(seen >= AGE_RANGE[0]) & (seen <= AGE_RANGE[1])]
            seen = plausible if len(plausible) else seen
        whole = bool((seen == np.round(seen)).all())
        described.append(
            replace(
                feature,
                minimum=_short(seen.min()),
                maximum=_short(seen.max()),
                example=round(float(np.median(seen)), 0 if whole else 2),
            )
        )
    return tuple(described)


def golden_samples(data: Data, network: Network) -> NDArray[np.float32]:
    """Return inputs float32 ``(8, features)`` whose answers show whether a network is the same.

    Five are rows of ``data``, from the least to the most probable response; then the median row
    with blanks where they may be, and two rows far outside of what training saw.
    """
    order = np.argsort(predict(network, data.features), kind="stable")
    places = np.linspace(0, len(order) - 1, 5).round().astype(int)
    blanks = [
        np.nan if feature.nullable else feature.example for feature in describe_features(data)
    ]
    outside = {"age": (130.0, 0.0), "income": (1e7, 0.0), "num_purchases": (500.0, 0.0)}
    typical = np.nanmedian(data.features, axis=0)
    high, low = (
        [
            outside[name][side] if name in outside else typical[i]
            for i, name in enumerate(FEATURE_NAMES)
        ]
        for side in (0, 1)
    )
    extra = np.array([blanks, high, low], dtype=np.float32)
    return np.concatenate([data.features[order[places]], extra])


def describe_samples(data: Data, network: Network) -> Reference:
    """Return how ``data`` and the answers of ``network`` to it are distributed, and how often a
    response was as probable as said.
    """
    probable = predict(network, data.features)
    return make_reference(
        FeatureEncoder(FEATURES),
        {FEATURES_TENSOR: data.features},
        np.column_stack([1 - probable, probable]),
        CLASSES,
        truth=[CLASSES[label] for label in data.labels],
    )


def describe_training(
    data: Data, recipe: Recipe, *, seed: int, evaluation: Evaluation
) -> dict[str, Any]:
    """Return the figures of training for the manifest: plain values, floats of 4 digits."""
    folds = len(evaluation.folds[NETWORK])
    return {
        "rows": len(data),
        "positives": int(data.labels.sum()),
        "distinct_rows": len(np.unique(data.groups)),
        "seed": seed,
        **asdict(recipe),
        "cross_validation": {
            "folds": folds,
            **_summary(evaluation, NETWORK),
            "by_fold": [
                {name: round(value, _DIGITS) for name, value in asdict(metrics).items()}
                for metrics in evaluation.folds[NETWORK]
            ],
        },
        "baselines": {
            model.replace(" ", "_"): _summary(evaluation, model)
            for model in MODELS
            if model != NETWORK
        },
    }


def _summary(evaluation: Evaluation, model: str) -> dict[str, dict[str, float]]:
    return {
        metric: {
            "mean": round(evaluation.mean(model, metric), _DIGITS),
            "std": round(evaluation.spread(model, metric), _DIGITS),
        }
        for metric in METRIC_NAMES
    }


def _short(value: np.float32) -> float:
    """Return the shortest decimal that is this float32: 2.67, not 2.6700000762939453."""
    return float(str(value))
