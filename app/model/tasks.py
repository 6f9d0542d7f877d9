"""Tasks: what the outputs of a network mean.

A `Model` runs any network by its signature. Its task says what clients see of it, and makes
predictions of its outputs. Nothing is computed from them that packing could put into the network:
probabilities are there as such, and a label is the index of a class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from .errors import MAX_FAULTS, BundleError, InputsRejected, NonFiniteOutput
from .manifest import Manifest, TaskName
from .manifest_checks import answer_roles
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
from .signature import LABEL, PREDICTION, Array, OutputSpec, Signature, Tensors

THRESHOLD = 0.5
"""The probability from which on a label applies, where the network doesn't say it itself."""


class Task:
    """The meaning of the outputs of a network; this one leaves it to the caller, who has the
    tensors.

    ``signature`` is what clients see of the network. ``answer`` is the output there that the task
    is about, None where there is none; with features it is called as its role. ``following`` are
    those that the network doesn't have, because they follow from it. ``width`` is the number of
    values in the answer to one sample, and ``columns`` are their names, None where they have none.
    """

    name: TaskName = "tensors"
    signature: Signature
    answer: OutputSpec | None = None
    following: tuple[OutputSpec, ...] = ()
    width = 0
    columns: tuple[str, ...] | None = None

    def __init__(self, manifest: Manifest) -> None:
        self.signature = manifest.signature

    @property
    def answer_role(self) -> str:
        """The role of the numbers of the answer; empty where there is no answer."""
        return self.answer.role if self.answer is not None else ""

    def answers(self, outputs: Tensors) -> Array:
        """Return the output that is the answer, a row for each of the inputs."""
        raise self._nothing_to_predict()

    def decide(self, outputs: Tensors) -> Any:
        """Return what the outputs for one row say, as plain values that don't change.

        Raises `NonFiniteOutput`.
        """
        raise self._nothing_to_predict()

    def prediction(
        self, decided: Any, version: str, timestamp: datetime, was_cached: bool | None
    ) -> Prediction:
        """Return the prediction that `decide` came to."""
        raise self._nothing_to_predict()

    def batch(self, outputs: Tensors, version: str, timestamp: datetime) -> Batch:
        """Return the predictions for all rows. Raises `NonFiniteOutput`."""
        raise self._nothing_to_predict()

    def check(self, outputs: Tensors) -> None:
        """Raise `BundleError` for outputs that can't be those of this task."""

    def _nothing_to_predict(self) -> NotImplementedError:
        return NotImplementedError(f"a model of the task {self.name!r} predicts nothing")


class _AnsweringTask(Task):
    """The part that all tasks of samples share: one output of the network is the answer."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        answer, label = manifest.output(*answer_roles(self.name)), manifest.output("label")
        assert answer is not None  # a manifest that could be read has one
        self.answer = self._own = answer
        self._answer = answer.name
        self._label = label.name if label is not None else None
        if manifest.takes_samples:
            self.width = math.prod(answer.shape[1:])
        if manifest.features:
            self.answer = OutputSpec(answer.role, answer.datatype, answer.shape, answer.role)
            self.following = self._following(answer)
            extras = [spec for spec in manifest.outputs if spec not in (answer, label)]
            outputs = (self.answer, *self.following, *extras)
            self.signature = Signature(manifest.inputs, outputs)

    def _following(self, answer: OutputSpec) -> tuple[OutputSpec, ...]:
        """Return the outputs beside the answer that clients see in the place of the label."""
        return ()

    def answers(self, outputs: Tensors) -> Array:
        return outputs[self._answer]

    def _finite(self, outputs: Tensors) -> Array:
        """Return the answers to all rows. Raises `NonFiniteOutput` with the first that aren't."""
        answers = outputs[self._answer]
        finite = np.isfinite(answers)
        if np.count_nonzero(finite) != finite.size:  # a third of the time of all(), for a row
            rows = ~finite.reshape(len(answers), -1).all(axis=1)
            raise NonFiniteOutput(np.flatnonzero(rows)[:MAX_FAULTS].tolist())
        return answers

    def check(self, outputs: Tensors) -> None:
        answers = outputs[self._answer]
        if not self._own.accepts(answers.shape):
            raise BundleError(
                f"The network returns outputs of shape {answers.shape}, not "
                f"{list(self._own.shape)} as the manifest says."
            )


class Classification(_AnsweringTask):
    """Classes that exclude each other: the predicted one is the network's label, if it has one,
    or the one with the largest value.
    """

    name = "classification"

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self.columns = self._classes = manifest.classes
        self._are_scores = self._own.role == "scores"
        self._sum_tolerance = manifest.tolerance(self._own.name).of_sum

    def _following(self, answer: OutputSpec) -> tuple[OutputSpec, ...]:
        return (
            OutputSpec(PREDICTION, "INT64", (-1,), "label"),
            OutputSpec(LABEL, "BYTES", (-1,), "label"),
        )

    def decide(self, outputs: Tensors) -> Any:
        values = tuple(outputs[self._answer][0].tolist())
        # Any NaN makes the sum NaN; that of finite scores may overflow.
        if not math.isfinite(sum(values)) and not all(map(math.isfinite, values)):
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
            if not (np.abs(answers.sum(axis=1) - 1) <= self._sum_tolerance).all():
                raise BundleError(_NO_PROBABILITIES)
        if self._label is not None:
            try:
                self._check_label(outputs[self._label])
            except InputsRejected:
                raise BundleError(
                    "The network's label is no index of one of the classes."
                ) from None


class Multilabel(_AnsweringTask):
    """Labels that don't exclude each other: those apply that the network's label says, if it has
    one, or whose probability is `THRESHOLD` or more.
    """

    name = "multilabel"

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self.columns = self._labels = manifest.labels

    def _following(self, answer: OutputSpec) -> tuple[OutputSpec, ...]:
        return (OutputSpec(PREDICTION, "INT64", answer.shape, "label"),)

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


class Regression(_AnsweringTask):
    """Numbers, one for each target."""

    name = "regression"

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self.columns = self._targets = tuple(target.name for target in manifest.targets)
        self._are_float32 = self._own.datatype == "FP32"

    def decide(self, outputs: Tensors) -> Any:
        return tuple(self._finite(outputs)[0].tolist())

    def prediction(
        self, decided: Any, version: str, timestamp: datetime, was_cached: bool | None
    ) -> ValuesPrediction:
        return ValuesPrediction(
            values=decided,
            targets=self._targets,
            are_float32=self._are_float32,
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


class Embedding(_AnsweringTask):
    """A vector that stands for the sample."""

    name = "embedding"

    def decide(self, outputs: Tensors) -> Any:
        vector = self._finite(outputs)[0].copy()  # it may be a row of many, which it would keep
        vector.setflags(write=False)
        return vector

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


_TASKS: Mapping[str, type[Task]] = {
    task.name: task for task in (Classification, Multilabel, Regression, Embedding, Task)
}


def task_of(manifest: Manifest) -> Task:
    """Return the task of a model."""
    return _TASKS[manifest.task](manifest)


_NO_PROBABILITIES = (
    "The network's outputs are not probabilities: they must be finite, not negative, and sum to 1 "
    "(is softmax in the graph?)."
)


def _check_probabilities(answers: Array) -> None:
    """Raise `BundleError` for values that aren't from 0 to 1, as far as sums are exact."""
    # Written so that NaN fails too. The trees of a forest may add up to a little less than 0.
    if not ((answers >= -1e-6) & (answers <= 1 + 1e-4)).all():
        raise BundleError(_NO_PROBABILITIES)
