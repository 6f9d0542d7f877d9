"""The metrics of a model's training, which every manifest nests in its own way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADLINE = (
    "roc_auc",
    "average_precision",
    "accuracy",
    "balanced_accuracy",
    "f1",
    "log_loss",
    "brier",
)
"""The metrics by which people choose a version, in the order in which they are shown."""
_SPREAD = ("std", "folds")
_OTHERS = "baselines"


def flatten(training: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Return the single values in ``training`` by dotted names, without arrays.

    ``{"cv": {"roc_auc": {"mean": 0.8}}}`` becomes ``{"cv.roc_auc.mean": 0.8}``.
    """
    values: dict[str, Any] = {}
    for key, value in training.items():
        name = f"{place}.{key}" if place else key
        if isinstance(value, Mapping):
            values |= flatten(value, name)
        elif not isinstance(value, list):
            values[name] = value
    return values


def headline(training: Mapping[str, Any], most: int = 3) -> dict[str, float]:
    """Return the few metrics that tell versions apart, at most ``most``; empty without any.

    A metric counts at any depth, except among baselines, which are other models'.
    """
    found: dict[str, float] = {}
    for name, value in flatten(training).items():
        parts = name.split(".")
        if _OTHERS in parts or parts[-1] in _SPREAD or type(value) not in (int, float):
            continue
        metric = next((part for part in reversed(parts) if part in HEADLINE), None)
        if metric is not None:
            found.setdefault(metric, float(value))
    return {name: found[name] for name in [metric for metric in HEADLINE if metric in found][:most]}
