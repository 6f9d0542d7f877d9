"""What is told of each prediction: to the caller in a header, to the log, and to the metrics."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from itertools import accumulate
from urllib.parse import quote

import numpy as np
from flask import Response, g
from numpy.typing import NDArray

from app.extension import lantern
from app.model.model import BatchPrediction, Model, Prediction

WARNINGS_HEADER = "X-Feature-Warnings"
_LONGEST_HEADER = 1000
_READABLE = " !#$&'()*+-./:;<=>?@[]^_`{|}~"

log = logging.getLogger("lantern.prediction")


def record_one(
    response: Response, model: Model, row: NDArray[np.float32], prediction: Prediction
) -> None:
    """Record one prediction: its log line, its metrics, its warnings."""
    _record(response, model, row, {prediction.label: 1})
    extra = {
        "request_id": g.request_id,
        "model_version": prediction.model_version,
        "prediction": prediction.label,
        "confidence": round(prediction.confidence, 6),
    }
    if lantern().settings.logging.features:
        values = [None if math.isnan(value) else value for value in row[0].tolist()]
        extra["features"] = dict(zip(model.encoder.names, values, strict=True))
    log.info("prediction", extra=extra)


def record_batch(
    response: Response, model: Model, matrix: NDArray[np.float32], batch: BatchPrediction
) -> None:
    """Record the predictions of a batch: their metrics, their warnings."""
    _record(response, model, matrix, batch.class_counts())


def _record(
    response: Response, model: Model, matrix: NDArray[np.float32], classes: Mapping[str, int]
) -> None:
    g.rows = len(matrix)
    outside = model.encoder.out_of_range(matrix)
    lantern().metrics.predicted(model.version, classes, outside)
    if outside:
        response.headers[WARNINGS_HEADER] = listed(outside)


def listed(names: Iterable[str]) -> str:
    """Write names for a header: what it can't hold is percent-encoded, a comma too.

    Those that make it too long for common clients and proxies are only counted.
    """
    written = [quote(name, safe=_READABLE) for name in names]
    lengths = accumulate(len(name) + 2 for name in written)
    fitting = sum(length <= _LONGEST_HEADER for length in lengths)
    if fitting < len(written):
        written[fitting:] = [f"and {len(written) - fitting} more"]
    return ", ".join(written)
