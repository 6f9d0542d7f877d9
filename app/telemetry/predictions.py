"""Records predictions in the log, the metrics, and the headers of the response."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ..access.header_names import FEATURE_WARNINGS
from ..model.model import Model
from ..model.predictions import Batch, Prediction
from ..model.signature import Tensors
from .logs import prediction_log, request_log
from .metrics import Metrics

OTHERS = "(other)"
"""The label of all classes, or features, without a series of their own."""
NO_CLASS = ""
"""The label of what a model without classes or labels answers: a row for each row."""
MAX_SERIES = 100
"""The most classes or labels of a model, and features, with a series of their own, and the most
labels or numbers of a prediction in its line of the log."""
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
    fields: dict[str, Any] = {
        "request_id": request_id,
        "model": model.name,
        "model_version": prediction.model_version,
        **prediction.log_fields(MAX_SERIES),
    }
    if with_features and model.takes_features:  # never an image or a text
        fields["features"] = model.encoder.sample(row, 0)
    prediction_log.info("prediction", fields, more_follows=request_log.is_enabled)
    return headers


def record_batch(
    metrics: Metrics, model: Model, rows: Tensors, batch: Batch
) -> list[tuple[str, str]]:
    """Record the predictions of a batch in the metrics, and return its warnings as headers."""
    return _record(metrics, model, rows, len(batch), batch.label_counts())


def record_run(metrics: Metrics, model: Model, rows: int, labels: Mapping[str, int]) -> None:
    """Record in the metrics that a network was run on tensors of so many ``rows``, and what classes
    or labels it named.
    """
    metrics.predicted(model, rows, _series(model, rows, labels), {})


def _record(
    metrics: Metrics, model: Model, rows: Tensors, count: int, labels: Mapping[str, int]
) -> list[tuple[str, str]]:
    outside = model.encoder.out_of_range(rows)
    headers = [(FEATURE_WARNINGS, listed(outside))] if outside else []
    metrics.predicted(
        model,
        count,
        _series(model, count, labels),
        _in_few_series(model.encoder.names, outside),
    )
    return headers


def _series(model: Model, rows: int, labels: Mapping[str, int]) -> Mapping[str, int]:
    """Return the counts of classes or labels; of the rows where the model has neither."""
    names = model.classes or model.manifest.labels
    return _in_few_series(names, labels) if names else {NO_CLASS: rows}


def _in_few_series(names: Sequence[str], counts: Mapping[str, int]) -> Mapping[str, int]:
    """Return ``counts`` of the first names, and the sum of all others: the same in every worker."""
    if len(names) <= MAX_SERIES:
        return counts
    few = {name: counts[name] for name in names[:MAX_SERIES] if name in counts}
    others = sum(counts.values()) - sum(few.values())
    return few | {OTHERS: others} if others else few


def listed(names: Collection[str]) -> str:
    """Return names as the value of a header, percent-encoded where necessary, like commas.

    Names beyond the length that common clients and proxies accept are only counted.
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
