"""Records predictions in the log, the metrics, and the headers of the response."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from ..access.header_names import FEATURE_WARNINGS
from ..model.model import Model
from ..model.predictions import Batch, Prediction
from ..model.signature import Tensors
from .logs import prediction_log
from .metrics import Metrics
from .version_counts import MAX_SERIES

_LONGEST_HEADER = 1000
_READABLE = " !#$&'()*+-./:;<=>?@[]^_`{|}~"


def record_one(
    metrics: Metrics,
    request_id: str,
    model: Model,
    row: Tensors,
    prediction: Prediction,
    *,
    with_features: bool,
) -> list[tuple[str, str]]:
    """Record a prediction in the log and the metrics, and return its warnings as headers.

    If ``with_features``, the features are logged, too.
    """
    headers = _record(metrics, model, row, 1, prediction.label_counts())
    if prediction.was_cached is not None and model.cache is not None:
        metrics.cache_looked_up(model, hit=prediction.was_cached, rows=len(model.cache))
    if not prediction_log.is_enabled:
        return headers
    fields: dict[str, Any] = {
        "request_id": request_id,
        "model": model.name,
        "model_version": prediction.model_version,
        **prediction.log_fields(MAX_SERIES),
    }
    if with_features and model.takes_features:  # never an image or a text
        fields["features"] = model.encoder.sample(row, 0)
    prediction_log.info("prediction", fields)
    return headers


def record_batch(
    metrics: Metrics, model: Model, rows: Tensors, batch: Prediction | Batch
) -> list[tuple[str, str]]:
    """Record the predictions of a batch, which may be of one row, in the metrics, and return its
    warnings as headers.
    """
    count = 1 if isinstance(batch, Prediction) else len(batch)
    return _record(metrics, model, rows, count, batch.label_counts())


def record_run(metrics: Metrics, model: Model, rows: int, labels: Mapping[str, int]) -> None:
    """Record in the metrics that a network was run on tensors of so many ``rows``, and what classes
    or labels it named.
    """
    metrics.predicted(model, rows, labels, {})


def _record(
    metrics: Metrics, model: Model, rows: Tensors, count: int, labels: Mapping[str, int]
) -> list[tuple[str, str]]:
    outside = model.encoder.out_of_range(rows)
    metrics.predicted(model, count, labels, outside)
    return [(FEATURE_WARNINGS, listed(outside))] if outside else []


def listed(names: Collection[str]) -> str:
    """Return names as the value of a header, percent-encoded where necessary, like commas.

    Names beyond the length that common clients and proxies accept are only counted.
    """
    written: list[str] = []
    length = 0
    for name in names:
        quoted = _quoted(name)
        length += len(quoted) + 2
        if length > _LONGEST_HEADER:
            written.append(f"and {len(names) - len(written)} more")
            break
        written.append(quoted)
    return ", ".join(written)


@lru_cache(maxsize=1024)
def _quoted(name: str) -> str:
    return quote(name[:_LONGEST_HEADER], safe=_READABLE)
