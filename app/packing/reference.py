"""Make the reference of a model from its samples: distributions, and rows that stand for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..model.columns import TensorColumns, is_nan
from ..model.encoder import FeatureEncoder
from ..model.errors import BundleError, listed
from ..model.reference import (
    Background,
    CalibrationBin,
    FeatureReference,
    Histogram,
    Reference,
)
from ..model.signature import Array, Tensors, row_count, select_rows
from .comparison import Compared
from .plan import Plan
from .roles import Answer
from .samples import read_column, spread
from .statement import Statement

MAX_FEATURES = 2_000
"""A model of more features gets no reference: the file would have to be read whole."""
_MAX_VALUES = 1_000
"""The most values of a category that are counted one by one."""
_BINS = 10
_BACKGROUND_ROWS = 100
_LEAST_IN_CLUSTER = 3
"""A centroid of fewer rows would nearly be one of them."""
_ROUNDS = 10
_PART = 1_000
"""The number of rows that are run together."""


def reference_of(plan: Plan, compared: Compared, statement: Statement) -> Reference | None:
    """Return how the samples of a model with features are distributed, and its answers."""
    material, answer = plan.material, plan.roles.answer
    if answer is None or not 0 < len(material.features) <= MAX_FEATURES:
        if statement.truth and material.steps is None:
            raise BundleError(
                "--truth is for models with features or steps, whose samples are a CSV."
            )
        return None
    rows, places = material.referred()
    parts = [
        compared.run(select_rows(rows, slice(start, start + _PART)))
        for start in range(0, row_count(rows), _PART)
    ]
    name = compared.served.outputs[0].name
    answers = np.concatenate([part[name] for part in parts])
    return make_reference(
        material.encoder,
        rows,
        answers.reshape(len(answers), -1),
        answer.names,
        truth=_truth(plan, answer, statement, places),
        real_rows=statement.real_background,
    )


def _truth(plan: Plan, answer: Answer, statement: Statement, places: list[int]) -> list[str] | None:
    """Return the name of the true class of each row, if the samples have it."""
    if not statement.truth:
        return None
    if plan.task != "classification" or not plan.material.lines:
        raise BundleError("--truth is for classifiers, whose samples are a CSV.")
    cells = read_column(plan.material.path, statement.truth)
    known = dict(zip(map(str, answer.label_values), answer.names, strict=False))
    known |= {name: name for name in answer.names}
    for line, cell in zip(plan.material.lines, cells, strict=True):
        if cell not in known:
            raise BundleError(
                f"{plan.material.path}: line {line}, column {statement.truth!r}: "
                f"{cell[:40]!r} is not one of the classes, {listed(answer.names)}."
            )
    return [known[cells[place]] for place in places]


def make_reference(
    encoder: FeatureEncoder,
    rows: Tensors,
    answers: Array,
    names: Sequence[str],
    *,
    truth: Sequence[str] | None = None,
    real_rows: bool = False,
) -> Reference:
    """Return the reference of ``rows``, for which a model gave ``answers`` ``(n, columns)``.

    ``names`` are those of the columns; ``truth`` has, for each row, the name of the class that was
    true, where that is known. With ``real_rows`` the background is some of the rows themselves.
    """
    features = {
        feature.name: _feature(columns, index, rows)
        for columns in encoder.tensors
        for index, feature in enumerate(columns.features)
    }
    columns = {name: answers[:, index] for index, name in enumerate(names)}
    return Reference(
        samples=row_count(rows),
        features={name: features[name] for name in encoder.names},
        answers={name: histogram(column) for name, column in columns.items()},
        background=_background(encoder, rows, real_rows=real_rows),
        calibration={} if truth is None else _calibration(columns, truth),
    )


def _feature(columns: TensorColumns, index: int, rows: Tensors) -> FeatureReference:
    array, feature = rows[columns.spec.name], columns.features[index]
    column = array.reshape(len(array), -1)[:, index]
    if feature.kind in ("number", "integer"):
        numbers = column.astype(np.float64)
        is_null = np.isnan(numbers)
        if feature.null_as is not None:
            is_null |= numbers == feature.null_as
        known = numbers[~is_null]
        return FeatureReference(
            nulls=int(is_null.sum()), deciles=_deciles(known) if len(known) else None
        )
    counts = Counter(
        None if is_nan(value) or (feature.nullable and value == feature.null_as) else value
        for value in column.tolist()
    )
    nulls = counts.pop(None, 0)
    common = counts.most_common(_MAX_VALUES)
    return FeatureReference(
        nulls=nulls,
        values={_word(feature.categories, value): count for value, count in common},
        others=counts.total() - sum(count for _, count in common),
    )


def _word(categories: Sequence[str], value: Any) -> str:
    if isinstance(value, str):
        return value
    if categories:
        return categories[int(value)]
    return "true" if value else "false"


def _deciles(values: Array) -> Histogram:
    """Return a histogram between the deciles, those that are the same joined into one."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)))
    return _counted(values, edges if len(edges) > 1 else np.repeat(edges, 2))


def histogram(values: Array) -> Histogram:
    """Return a histogram of ten bins as wide as each other; from 0 to 1 for probabilities."""
    values = values.astype(np.float64)
    low, high = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else _range(values)
    return _counted(values, np.linspace(low, high, _BINS + 1))


def _range(values: Array) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _counted(values: Array, edges: Array) -> Histogram:
    if edges[0] == edges[-1]:
        return Histogram((float(edges[0]), float(edges[0])), (len(values),))
    counts, _ = np.histogram(values, edges)
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))


def _calibration(
    columns: Mapping[str, Array], truth: Sequence[str]
) -> dict[str, tuple[CalibrationBin, ...]]:
    return {
        name: tuple(_bins(column, np.array([each == name for each in truth])))
        for name, column in columns.items()
    }


def _bins(probabilities: Array, came_true: Array) -> list[CalibrationBin]:
    places = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    return [
        CalibrationBin(
            int(here.sum()), float(probabilities[here].mean()), float(came_true[here].mean())
        )
        for here in (places == index for index in range(_BINS))
        if here.any()
    ]


def _background(encoder: FeatureEncoder, rows: Tensors, *, real_rows: bool) -> Background:
    count = row_count(rows)
    if real_rows:
        chosen = spread(count, _BACKGROUND_ROWS)
        samples = tuple(encoder.sample(rows, int(index)) for index in chosen)
        return Background("rows", samples, (1,) * len(samples))
    cluster = _clusters(_scaled(encoder, rows))
    centroids, weights = [], []
    for index in range(int(cluster.max()) + 1):
        members = np.flatnonzero(cluster == index)
        if len(members) >= min(_LEAST_IN_CLUSTER, count):
            centroids.append(_centroid(encoder, rows, members))
            weights.append(len(members))
    return Background("centroids", tuple(centroids), tuple(weights))


def _scaled(encoder: FeatureEncoder, rows: Tensors) -> Array:
    """Return the numbers of ``rows``, each column scaled to its spread, null as its mean."""
    numbers = [
        rows[columns.spec.name].reshape(row_count(rows), -1).astype(np.float64)
        for columns in encoder.tensors
        if columns.dtype.kind != "O"
    ]
    if not numbers:
        return np.zeros((row_count(rows), 1))
    matrix = np.concatenate(numbers, axis=1)
    known = ~np.isnan(matrix)
    filled = np.where(known, matrix, 0.0)
    mean = filled.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, matrix - mean, 0.0)
    spread = centred.std(axis=0)
    scaled: Array = centred / np.where(spread > 0, spread, 1.0)
    return scaled


def _clusters(points: Array) -> Array:
    """Return the cluster of each point (k-means, Lloyd's rounds from points spread evenly)."""
    count = max(1, min(_BACKGROUND_ROWS, len(points) // (2 * _LEAST_IN_CLUSTER)))
    order = np.argsort(points.sum(axis=1), kind="stable")
    centres = points[order[np.linspace(0, len(points) - 1, count).astype(int)]]
    cluster = np.zeros(len(points), dtype=int)
    for _ in range(_ROUNDS):
        cluster = _nearest(points, centres)
        sums = np.zeros_like(centres)
        np.add.at(sums, cluster, points)
        sizes = np.bincount(cluster, minlength=count)[:, np.newaxis]
        centres = np.where(sizes > 0, sums / np.maximum(sizes, 1), centres)
    return cluster


def _nearest(points: Array, centres: Array) -> Array:
    squares = (centres**2).sum(axis=1)
    nearest: Array = (squares - 2 * points @ centres.T).argmin(axis=1)
    return nearest


def _centroid(encoder: FeatureEncoder, rows: Tensors, members: Array) -> dict[str, Any]:
    """Return the mean of some rows: of numbers their mean, of others the most frequent value."""
    samples = [encoder.sample(rows, int(index)) for index in members[:_MAX_VALUES]]
    centroid: dict[str, Any] = {}
    for feature in encoder.features:
        values = [sample[feature.name] for sample in samples]
        known = [value for value in values if value is not None]
        if not known:
            centroid[feature.name] = None
        elif feature.kind == "number":
            centroid[feature.name] = float(np.mean(known))
        elif feature.kind == "integer":
            centroid[feature.name] = int(np.median(known))
        else:
            centroid[feature.name] = Counter(known).most_common(1)[0][0]
    return centroid
