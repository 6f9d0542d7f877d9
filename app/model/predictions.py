"""Predictions: what the outputs of a network mean for samples, by the task of the model.

A prediction is of one sample, a batch of many. Iterating over a batch yields its predictions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from .signature import Array, Tensors, select_rows

VALUES, DECIDED = "values", "decided"
"""What is compared with the answers of another version: the numbers, and what was decided of them,
which is not always what is largest: the index of the class ``(n,)``, or which labels apply
``(n, labels)``."""


class Prediction(Struct, frozen=True, kw_only=True, gc=False):
    """The prediction for one sample: ``values`` are the numbers of the answer.

    ``was_cached`` is True if it came from the cache; None without a cache.
    """

    values: Any
    model_version: str
    timestamp: datetime
    was_cached: bool | None = None

    def label_counts(self) -> Mapping[str, int]:
        """Count the class or labels predicted; none where there are none."""
        return {}

    def log_fields(self, most: int) -> dict[str, Any]:
        """Return what a line of the log says of the prediction, with ``most`` labels or numbers:
        its label, its labels, its number or numbers, or nothing of an embedding.
        """
        return {"prediction": None}

    @property
    def decided(self) -> Array | None:
        """The decision on the values, an array of one row; None where nothing is."""
        return None

    def comparable(self) -> Tensors:
        """Return `VALUES`, and `DECIDED` where the task decides: arrays of one row."""
        return _comparable(np.asarray([self.values]), self.decided)


class ClassPrediction(Prediction, frozen=True, kw_only=True, gc=False):
    """One of several classes: its index and name, and a value for each class, in their order.

    The values are probabilities, or scores of which only the order has a meaning.
    """

    class_index: int
    label: str
    are_scores: bool = False

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The probability of each class; none where the model has scores only."""
        return () if self.are_scores else tuple(self.values)

    @property
    def confidence(self) -> float | None:
        """The probability of the predicted class; None where the model has scores only."""
        return None if self.are_scores else float(self.values[self.class_index])

    def label_counts(self) -> Mapping[str, int]:
        return {self.label: 1}

    def log_fields(self, most: int) -> dict[str, Any]:
        if self.are_scores:
            return {"prediction": self.label}
        confidence = round(self.values[self.class_index], 6)
        return {"prediction": self.label, "confidence": confidence}

    @property
    def decided(self) -> Array:
        return np.asarray([self.class_index])


class LabelsPrediction(Prediction, frozen=True, kw_only=True, gc=False):
    """The labels that apply, by index and name; ``values`` are the probabilities of all labels."""

    indices: tuple[int, ...]
    labels: tuple[str, ...]

    def label_counts(self) -> Mapping[str, int]:
        return dict.fromkeys(self.labels, 1)

    def log_fields(self, most: int) -> dict[str, Any]:
        return {"prediction": list(self.labels[:most])}

    @property
    def decided(self) -> Array:
        applies = np.zeros((1, len(self.values)), dtype=bool)
        applies[0, list(self.indices)] = True
        return applies


class ValuesPrediction(Prediction, frozen=True, kw_only=True, gc=False):
    """Numbers, one for each of ``targets``, by name; ``are_float32`` if they have only the digits
    of such.
    """

    targets: tuple[str, ...]
    are_float32: bool = False

    def log_fields(self, most: int) -> dict[str, Any]:
        numbers = list(self.values[:most])
        if self.are_float32:
            numbers = [float(str(np.float32(number))) for number in numbers]
        return {"prediction": numbers[0] if len(self.values) == 1 else numbers}


class EmbeddingPrediction(Prediction, frozen=True, kw_only=True, gc=False):
    """A vector (or a larger array) that stands for the sample."""


class Batch(Struct, frozen=True, kw_only=True, gc=False):
    """The predictions for ``n`` samples.

    ``outputs`` are all those of the network; ``answers`` is the one, of ``n`` rows, that the task
    is about.
    """

    answers: Array
    outputs: Tensors
    model_version: str
    timestamp: datetime

    def __len__(self) -> int:
        return len(self.answers)

    def __iter__(self) -> Iterator[Prediction]:
        raise NotImplementedError  # each kind of batch yields its own

    @property
    def nbytes(self) -> int:
        """The bytes of memory of what was predicted, without the ``outputs``."""
        return self.answers.nbytes

    def rows(self, start: int, end: int) -> Self:
        """Return the batch of the rows from ``start`` up to ``end``, which shares its memory."""
        some = slice(start, end)
        return replace(self, answers=self.answers[some], outputs=select_rows(self.outputs, some))

    @classmethod
    def joined(cls, batches: Sequence[Self]) -> Self:
        """Return the predictions of several batches of the same model as one, without outputs."""
        first = batches[0]
        arrays = {
            name: np.concatenate([getattr(batch, name) for batch in batches])
            for name in cls.__struct_fields__
            if isinstance(getattr(first, name), np.ndarray)
        }
        return replace(first, **arrays, outputs={})

    def label_counts(self) -> Mapping[str, int]:
        """Count the predictions of each class or label that occurs; none where there are none."""
        return {}

    @property
    def decided(self) -> Array | None:
        """The decisions on the answers, an array of ``n`` rows; None where nothing is."""
        return None

    def comparable(self) -> Tensors:
        """Return `VALUES`, and `DECIDED` where the task decides: arrays of ``n`` rows."""
        return _comparable(self.answers, self.decided)


class ClassBatch(Batch, frozen=True, kw_only=True, gc=False):
    """Classes: ``answers`` are the probabilities or scores ``(n, classes)``, ``class_indices`` is
    int ``(n,)``.
    """

    class_indices: NDArray[np.intp]
    classes: tuple[str, ...]
    are_scores: bool = False

    def __iter__(self) -> Iterator[ClassPrediction]:
        rows = zip(self.class_indices.tolist(), self.answers.tolist(), strict=True)
        for index, row in rows:
            yield ClassPrediction(
                class_index=index,
                label=self.classes[index],
                values=tuple(row),
                are_scores=self.are_scores,
                model_version=self.model_version,
                timestamp=self.timestamp,
            )

    @property
    def nbytes(self) -> int:
        return self.answers.nbytes + self.class_indices.nbytes

    def rows(self, start: int, end: int) -> Self:
        return replace(super().rows(start, end), class_indices=self.class_indices[start:end])

    def label_counts(self) -> Mapping[str, int]:
        if len(self.class_indices) == 1:
            return {self.classes[self.class_indices.item()]: 1}
        counts = np.bincount(self.class_indices)
        return {self.classes[index]: int(counts[index]) for index in np.flatnonzero(counts)}

    @property
    def decided(self) -> Array:
        return self.class_indices


class LabelsBatch(Batch, frozen=True, kw_only=True, gc=False):
    """Labels that don't exclude each other: ``answers`` are their probabilities ``(n, labels)``,
    ``applies`` is bool of the same shape.
    """

    applies: NDArray[np.bool_]
    labels: tuple[str, ...]

    def __iter__(self) -> Iterator[LabelsPrediction]:
        for applies, row in zip(self.applies, self.answers.tolist(), strict=True):
            indices = np.flatnonzero(applies).tolist()
            yield LabelsPrediction(
                indices=tuple(indices),
                labels=tuple(self.labels[index] for index in indices),
                values=tuple(row),
                model_version=self.model_version,
                timestamp=self.timestamp,
            )

    @property
    def nbytes(self) -> int:
        return self.answers.nbytes + self.applies.nbytes

    def rows(self, start: int, end: int) -> Self:
        return replace(super().rows(start, end), applies=self.applies[start:end])

    def label_counts(self) -> Mapping[str, int]:
        counts = self.applies.sum(axis=0).tolist()
        return {name: n for name, n in zip(self.labels, counts, strict=True) if n}

    @property
    def decided(self) -> Array:
        return self.applies


class ValuesBatch(Batch, frozen=True, kw_only=True, gc=False):
    """Numbers: ``answers`` are ``(n, targets)``."""

    targets: tuple[str, ...]

    def __iter__(self) -> Iterator[ValuesPrediction]:
        are_float32 = self.answers.dtype == np.float32
        for row in self.answers.tolist():
            yield ValuesPrediction(
                values=tuple(row),
                targets=self.targets,
                are_float32=are_float32,
                model_version=self.model_version,
                timestamp=self.timestamp,
            )


class EmbeddingBatch(Batch, frozen=True, kw_only=True, gc=False):
    """Vectors: ``answers`` are ``(n, ...)``."""

    def __iter__(self) -> Iterator[EmbeddingPrediction]:
        for row in self.answers:
            yield EmbeddingPrediction(
                values=row, model_version=self.model_version, timestamp=self.timestamp
            )


def _comparable(values: Array, decided: Array | None) -> Tensors:
    return {VALUES: values} if decided is None else {VALUES: values, DECIDED: decided}
