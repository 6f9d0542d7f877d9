"""Rows for the example model, and what the native API answers; every client must get the same.

It needs the standard library alone: each client has an environment of its own.
"""

from __future__ import annotations

import json
import urllib.request
from typing import Any

MODEL = "campaign-response"
FEATURES = (
    "age",
    "income",
    "tenure_days",
    "num_purchases",
    "avg_transaction_value",
    "days_since_last_purchase",
)
ROWS = ((44.0, 51546.0, 356.0, 12.0, 30.25, 49.0), (25.0, 90000.0, 30.0, 2.0, 5.5, 300.0))


def predictions(url: str) -> list[dict[str, Any]]:
    """Return what ``/predict/batch`` answers for `ROWS`."""
    samples = [dict(zip(FEATURES, row, strict=True)) for row in ROWS]
    request = urllib.request.Request(
        f"{url}/predict/batch",
        json.dumps({"samples": samples}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        found: list[dict[str, Any]] = json.load(response)["predictions"]
    return found


def labels(url: str) -> list[str]:
    """Return the labels of `ROWS`."""
    return [prediction["label"] for prediction in predictions(url)]


def probabilities(url: str) -> list[list[float]]:
    """Return the probabilities of `ROWS`."""
    return [list(prediction["probabilities"].values()) for prediction in predictions(url)]
