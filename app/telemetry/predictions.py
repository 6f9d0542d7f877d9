"""What is recorded of each prediction: in a header for the caller, the log, and the metrics."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ..access.header_names import FEATURE_WARNINGS
from ..model.model import BatchPrediction, Model, Prediction
from .logs import prediction_log, request_log
from .metrics import Metrics

OTHERS = "(other)"
"""The label of all classes, or features, of a model that have no series of their own."""
MAX_SERIES = 100
"""Classes of a model that have a series of their own in the metrics; features likewise."""
_LONGEST_HEADER = 1000
_READABLE = " !#$&'()*+-./:;<=>?@[]^_`{|}~"


def record_one(
    metrics: Metrics,
    request_id: str,
    model: Model,
    row: NDArray[np.float32],
    prediction: Prediction,
    *,
    with_features: bool,
) -> list[tuple[str, str]]:
    """Record one prediction in the log and the metrics; return its warnings as headers.

    ``with_features`` writes the features to the log, too.
    """
    headers = _record(metrics, model, row, {prediction.label: 1})
    if prediction.was_cached is not None and model.cache is not None:
        metrics.cache_asked(model, hit=prediction.was_cached, rows=len(model.cache))
    fields: dict[str, Any] = {
        "request_id": request_id,
        "model": model.name,
        "model_version": prediction.model_version,
        "prediction": prediction.label,
        "confidence": round(prediction.confidence, 6),
    }
    if with_features:
        values = [None if math.isnan(value) else value for value in row[0].tolist()]
        fields["features"] = dict(zip(model.encoder.names, values, strict=True))
    prediction_log.info("prediction", fields, more_follows=request_log.is_enabled)
    return headers


def record_batch(
    metrics: Metrics, model: Model, matrix: NDArray[np.float32], batch: BatchPrediction
) -> list[tuple[str, str]]:
    """Record the predictions of a batch in the metrics; return their warnings as headers."""
    return _record(metrics, model, matrix, batch.class_counts())


def _record(
    metrics: Metrics, model: Model, matrix: NDArray[np.float32], classes: Mapping[str, int]
) -> list[tuple[str, str]]:
    outside = model.encoder.out_of_range(matrix)
    headers = [(FEATURE_WARNINGS, listed(outside))] if outside else []
    metrics.predicted(
        model,
        _in_few_series(model.classes, classes),
        _in_few_series(model.encoder.names, outside),
    )
    return headers


def _in_few_series(names: Sequence[str], counts: Mapping[str, int]) -> Mapping[str, int]:
    """Sum what is counted of all names but the first of a model, the same in every worker."""
    if len(names) <= MAX_SERIES:
        return counts
    few = {name: counts[name] for name in names[:MAX_SERIES] if name in counts}
    others = sum(counts.values()) - sum(few.values())
    return few | {OTHERS: others} if others else few


def listed(names: Collection[str]) -> str:
    """Write names for a header: what it can't hold is percent-encoded, a comma too.

    Those that make it too long for common clients and proxies are only counted.
    """
    written: list[str] = []
    length = 0
    for name in names:
        quoted = quote(name[:_LONGEST_HEADER], safe=_READABLE)
        length += len(quoted) + 2
        if length > _LONGEST_HEADER:
            written.append(f"and {len(names) - len(written)} more")
            break
        written.append(quoted)
    return ", ".join(written)
