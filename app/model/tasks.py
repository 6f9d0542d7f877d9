"""Tasks: what the outputs of a network mean.

A `Model` runs any network by its signature. Its task says what clients see of it, and makes
predictions of its outputs. Nothing is computed from them that packing could put into the network:
probabilities are there as such, and a label is the index of a class.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import numpy as np

from .errors import MAX_FAULTS, BundleError, InputsRejected, NonFiniteOutput
from .manifest import Manifest
from .predictions import (
    Batch,
    ClassBatch,
    ClassPrediction,
    EmbeddingBatch,
    EmbeddingPrediction,
    LabelsBatch,
    LabelsPrediction,
    Prediction,
    ValuesBatch,
    ValuesPrediction,
)
from .signature import (
    LABEL,
    PREDICTION,
    Array,
    OutputSpec,
    Role,
    Signature,
    Tensors,
    TensorSpec,
)

THRESHOLD = 0.5
"""The probability from which on a label applies, where the network doesn't say it itself."""


class Task(Protocol):
    """What the outputs of a network mean. ``signature`` is what clients see of it.

    ``width`` is the number of values in the answer to one row, 0 where it isn't known; ``columns``
    are their names, None where they have none.
    """

    name: str
    signature: Signature
    width: int
    columns: tuple[str, ...] | None

    def answers(self, outputs: Tensors) -> Array:
        """Return the output that is the answer, a row for each of the inputs."""
        ...

    def decide(self, outputs: Tensors) -> Any:
        """Return what the outputs for one row say, as plain values that don't change.

        Raises `NonFiniteOutput`.
        """
        ...

    def prediction(
        self, decided: Any, version: str, timestamp: datetime, was_cached: bool | None
    ) -> Prediction:
        """Return the prediction that `decide` came to."""
        ...

    def batch(self, outputs: Tensors, version: str, timestamp: datetime) -> Batch:
        """Return the predictions for all rows. Raises `NonFiniteOutput`."""
        ...

    def check(self, outputs: Tensors) -> None:
        """Raise `BundleError` for outputs that can't be those of this task."""
        ...


class _Answering:
    """The part that all tasks of samples share: one output of the network is the answer."""

    roles: tuple[Role, ...]
    name: str
    columns: tuple[str, ...] | None

    def __init__(self, manifest: Manifest) -> None:
        answer, label = manifest.output(*self.roles), manifest.output("label")
        assert answer is not None  # a manifest that could be read has one
        self._answer = answer.name
        self._spec = answer
        self._label = label.name if label is not None else None
        self._manifest = manifest
        self.width = math.prod(map(abs, answer.shape[1:]))
        extras = [spec for spec in manifest.outputs if spec not in (answer, label)]
        self.signature = (
            Signature(manifest.inputs, (*self._outputs(answer), *extras))
            if manifest.features
            else manifest.signature
        )

    def _outputs(self, answer: OutputSpec) -> Sequence[TensorSpec]:
        """Return the outputs that clients see in the place of the network's own."""
        return [TensorSpec(answer.role, answer.datatype, answer.shape)]

    def answers(self, outputs: Tensors) -> Array:
        return outputs[self._answer]

    def _finite(self, outputs: Tensors) -> Array:
        """Return the answers to all rows. Raises `NonFiniteOutput` with the first that aren't."""
        answers = outputs[self._answer]
        finite = np.isfinite(answers)
        if not finite.all():
            rows = ~finite.reshape(len(answers), -1).all(axis=1)
            raise NonFiniteOutput(np.flatnonzero(rows)[:MAX_FAULTS].tolist())
        return answers

    def check(self, outputs: Tensors) -> None:
        answers = outputs[self._answer]
        if not self._spec.accepts(answers.shape):
            raise BundleError(
                f"The network returns outputs of shape {answers.shape}, not "
                f"{list(self._spec.shape)} as the manifest says."
            )


class Classification(_Answering):
    """Classes that exclude each other: the predicted one is the network's label, if it has one,
    or the one with the largest value.
    """

    name = "classification"
    roles = ("probabilities", "scores")

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self.columns = self._classes = manifest.classes
        self._are_scores = self._spec.role == "scores"

    def _outputs(self, answer: OutputSpec) -> Sequence[TensorSpec]:
        return [
            *super()._outputs(answer),
            TensorSpec(PREDICTION, "INT64", (-1,)),
            TensorSpec(LABEL, "BYTES", (-1,)),
        ]

    def decide(self, outputs: Tensors) -> Any:
        values = tuple(outputs[self._answer][0].tolist())
        if not math.isfinite(sum(values)):  # any NaN makes the sum NaN
            raise NonFiniteOutput
        if self._label is None:
            return values.index(max(values)), values
        self._check_label(outputs[self._label])
        return int(outputs[self._label][0]), values

    def _check_label(self, label: Array) -> None:
        if not ((label >= 0) & (label < len(self._classes))).all():
            raise InputsRejected("its label is none of the classes")

    def prediction(
        self, decided: Any, version: str, timestamp: datetime, was_cached: bool | None
    ) -> ClassPrediction:
        index, values = decided
        return ClassPrediction(
            class_index=index,
            label=self._classes[index],
            values=values,
            are_scores=self._are_scores,
            model_version=version,
            timestamp=timestamp,
            was_cached=was_cached,
        )

    def batch(self, outputs: Tensors, version: str, timestamp: datetime) -> ClassBatch:
        answers = self._finite(outputs)
        indices = answers.argmax(axis=1)
        if self._label is not None:
            indices = outputs[self._label]
            self._check_label(indices)
        return ClassBatch(
            class_indices=indices,
            answers=answers,
            classes=self._classes,
            are_scores=self._are_scores,
            outputs=outputs,
            model_version=version,
            timestamp=timestamp,
        )

    def check(self, outputs: Tensors) -> None:
        super().check(outputs)
        answers = outputs[self._answer]
        if not self._are_scores:
            _check_probabilities(answers)
            if not (np.abs(answers.sum(axis=1) - 1) <= 1e-4).all():
                raise BundleError(_NO_PROBABILITIES)
        if self._label is not None:
            try:
                self._check_label(outputs[self._label])
            except InputsRejected:
                raise BundleError(
                    "The network's label is no index of one of the classes."
                ) from None


class Multilabel(_Answering):
    """Labels that don't exclude each other: those apply that the network's label says, if it has
    one, or whose probability is `THRESHOLD` or more.
    """

    name = "multilabel"
    roles = ("probabilities",)

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self.columns = self._labels = manifest.labels

    def _outputs(self, answer: OutputSpec) -> Sequence[TensorSpec]:
        return [*super()._outputs(answer), TensorSpec(PREDICTION, "INT64", answer.shape)]

    def decide(self, outputs: Tensors) -> Any:
        values = tuple(self._finite(outputs)[0].tolist())
        return tuple(np.flatnonzero(self._applies(outputs)[0]).tolist()), values

    def _applies(self, outputs: Tensors) -> Array:
        if self._label is not None:
            applies: Array = outputs[self._label] != 0
        else:
            applies = outputs[self._answer] >= THRESHOLD
        return applies

    def prediction(
        self, decided: Any, version: str, timestamp: datetime, was_cached: bool | None
    ) -> LabelsPrediction:
        indices, values = decided
        return LabelsPrediction(
            indices=indices,
            labels=tuple(self._labels[index] for index in indices),
            values=values,
            model_version=version,
            timestamp=timestamp,
            was_cached=was_cached,
        )

    def batch(self, outputs: Tensors, version: str, timestamp: datetime) -> LabelsBatch:
        return LabelsBatch(
            answers=self._finite(outputs),
            applies=self._applies(outputs),
            labels=self._labels,
            outputs=outputs,
            model_version=version,
            timestamp=timestamp,
        )

    def check(self, outputs: Tensors) -> None:
        super().check(outputs)
        _check_probabilities(outputs[self._answer])


class Regression(_Answering):
    """Numbers, one for each target."""

    name = "regression"
    roles = ("values",)

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self.columns = self._targets = tuple(target.name for target in manifest.targets)

    def decide(self, outputs: Tensors) -> Any:
        return tuple(self._finite(outputs)[0].tolist())

    def prediction(
        self, decided: Any, version: str, timestamp: datetime, was_cached: bool | None
    ) -> ValuesPrediction:
        return ValuesPrediction(
            values=decided,
            targets=self._targets,
            model_version=version,
            timestamp=timestamp,
            was_cached=was_cached,
        )

    def batch(self, outputs: Tensors, version: str, timestamp: datetime) -> ValuesBatch:
        return ValuesBatch(
            answers=self._finite(outputs),
            targets=self._targets,
            outputs=outputs,
            model_version=version,
            timestamp=timestamp,
        )


class Embedding(_Answering):
    """A vector that stands for the sample."""

    name = "embedding"
    roles = ("embedding",)
    columns: tuple[str, ...] | None = None

    def decide(self, outputs: Tensors) -> Any:
        return self._finite(outputs)[0]

    def prediction(
        self, decided: Any, version: str, timestamp: datetime, was_cached: bool | None
    ) -> EmbeddingPrediction:
        return EmbeddingPrediction(
            values=decided, model_version=version, timestamp=timestamp, was_cached=was_cached
        )

    def batch(self, outputs: Tensors, version: str, timestamp: datetime) -> EmbeddingBatch:
        return EmbeddingBatch(
            answers=self._finite(outputs),
            outputs=outputs,
            model_version=version,
            timestamp=timestamp,
        )


class TensorTask:
    """Tensors as the network has them: what they mean is known to the caller."""

    name = "tensors"
    width = 0
    columns: tuple[str, ...] | None = None

    def __init__(self, manifest: Manifest) -> None:
        self.signature = manifest.signature

    def answers(self, outputs: Tensors) -> Array:
        raise AssertionError("a model of the task 'tensors' has no features to predict from")

    def decide(self, outputs: Tensors) -> Hashable:
        raise AssertionError("a model of the task 'tensors' has no features to predict from")

    def prediction(
        self, decided: Any, version: str, timestamp: datetime, was_cached: bool | None
    ) -> Prediction:
        raise AssertionError("a model of the task 'tensors' has no features to predict from")

    def batch(self, outputs: Tensors, version: str, timestamp: datetime) -> Batch:
        raise AssertionError("a model of the task 'tensors' has no features to predict from")

    def check(self, outputs: Tensors) -> None:
        """Accept any outputs: they mean nothing here."""


_TASKS: Mapping[str, type[Classification | Multilabel | Regression | Embedding]] = {
    task.name: task for task in (Classification, Multilabel, Regression, Embedding)
}


def task_of(manifest: Manifest) -> Task:
    """Return the task of a model."""
    task = _TASKS.get(manifest.task)
    return TensorTask(manifest) if task is None else task(manifest)


_NO_PROBABILITIES = (
    "The network's outputs are not probabilities: they must be finite, not negative, and sum to 1 "
    "(is softmax in the graph?)."
)


def _check_probabilities(answers: Array) -> None:
    """Raise `BundleError` for values that aren't from 0 to 1."""
    # Written so that NaN fails too.
    if not ((answers >= 0) & (answers <= 1 + 1e-4)).all():
        raise BundleError(_NO_PROBABILITIES)
