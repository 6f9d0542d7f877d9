"""The schemas of predictions, by the task of the model: they dump, encode and describe them.

`dump` is marshmallow's, an object of Python for each value; the service sends what `in_parts`
encodes, which is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, ClassVar

import numpy as np
import orjson
from marshmallow import Schema, fields

from ...model.model import Model
from ...model.predictions import (
    Batch,
    ClassBatch,
    ClassPrediction,
    LabelsPrediction,
    Prediction,
    ValuesPrediction,
)
from .answers import EncodedRows, orjson_time
from .plain_answers import PlainRows

Parts = EncodedRows | PlainRows | tuple[bytes]
"""The JSON of an answer in parts, each a few milliseconds of work; most answers are one."""

_FEW_VALUES = 64
"""Up to this many values in a row, orjson alone is faster."""
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_LINE = _NUMPY | orjson.OPT_APPEND_NEWLINE


@lru_cache(maxsize=16)
def _class_keys(classes: int) -> tuple[str, ...]:
    return tuple(f"class_{index}" for index in range(classes))


def doc(description: str, **more: Any) -> dict[str, Any]:
    """Return what describes a field in the OpenAPI document."""
    return {"metadata": {"description": description, **more}}


def _version() -> fields.String:
    return fields.String(required=True)


def _timestamp() -> fields.DateTime:
    return fields.DateTime(required=True, format="iso", **doc("In UTC, with the offset."))


class ByPositionField(fields.Dict):
    """Numbers by the position of their class or label: ``{"class_0": p, "class_1": p, ...}``."""

    def __init__(self, description: str) -> None:
        super().__init__(
            required=True,
            attribute="values",
            keys=fields.String(),
            values=fields.Float(),
            **doc(description),
        )

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return dict(zip(_class_keys(len(value)), value, strict=True))


class AnswerSchema(Schema):
    """The base of the schemas of one prediction.

    ``as_number`` converts a number to the datatype of the network's output, so that it is written
    with the digits that identify it there: a float32 has fewer than a float64.
    """

    numbers_member: ClassVar[str]
    """The member that holds the numbers of the answer; those before it are `before`."""

    def __init__(self, as_number: Callable[[float], Any] = np.float32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.as_number = as_number

    def encode(self, prediction: Any) -> bytes:
        """Return what `dump` returns as JSON, with a newline at its end."""
        return b"".join(self.in_parts(prediction))

    def in_parts(self, prediction: Any) -> Parts:
        """Return what `encode` returns in parts: one, unless there are many values."""
        if len(prediction.values) > _FEW_VALUES:
            return self.many_values_in_parts(prediction)
        return (orjson.dumps(self.document(prediction), option=_LINE),)

    def many_values_in_parts(self, prediction: Any) -> Parts:
        """Return the parts of a prediction of many values."""
        values = prediction.values
        shape = values.shape if isinstance(values, np.ndarray) else (len(values),)
        return PlainRows(self, lambda *_: [prediction], 1, shape)

    def document(self, prediction: Any) -> dict[str, Any]:
        """Return the members of a prediction, for orjson."""
        numbers, keys = self.numbers(prediction), self.keys(prediction)
        return {
            **self.before(prediction),
            self.numbers_member: numbers if keys is None else dict(zip(keys, numbers, strict=True)),
            **self.after(prediction),
        }

    def before(self, prediction: Any) -> dict[str, Any]:
        """Return the members before the numbers."""
        return {}

    def numbers(self, prediction: Any) -> Any:
        """Return the numbers of an answer, with their digits."""
        return [*map(self.as_number, prediction.values)]

    def keys(self, prediction: Any) -> Sequence[str] | None:
        """Return the keys of the numbers; None where they are an array."""
        return _class_keys(len(prediction.values))

    def after(self, prediction: Prediction) -> dict[str, Any]:
        """Return the members behind the numbers."""
        return {
            "model_version": prediction.model_version,
            "timestamp": orjson_time(prediction.timestamp),
        }


class TopSchema(Schema):
    """One of the most probable classes or labels."""

    label = fields.String(required=True, **doc("Name of the class or label."))
    index = fields.Integer(required=True, data_key="class", **doc("Its index."))
    probability = fields.Float()
    score = fields.Float(**doc("In the place of a probability, where the model has scores only."))


def _top() -> fields.List[Any]:
    return fields.List(
        fields.Nested(TopSchema),
        **doc("Where the request asks for it: the most probable, the first of them first."),
    )


class _ClassSchema(AnswerSchema):
    """One of several classes."""

    prediction = fields.Integer(
        required=True, attribute="class_index", **doc("Index of the predicted class.")
    )
    label = fields.String(required=True, **doc("Name of that class."))

    def before(self, prediction: ClassPrediction) -> dict[str, Any]:
        return {"prediction": prediction.class_index, "label": prediction.label}


class PredictionSchema(_ClassSchema):
    """One of several classes, with probabilities."""

    numbers_member = "probabilities"

    probabilities = ByPositionField(
        "Probability of each class, by its index in the model's classes."
    )
    model_version = _version()
    timestamp = _timestamp()
    top = _top()

    def many_values_in_parts(self, prediction: ClassPrediction) -> EncodedRows:
        return EncodedRows(
            np.array([prediction.class_index]),
            np.array([prediction.values], dtype=np.float32),
            {prediction.class_index: prediction.label},
            version=prediction.model_version,
            timestamp=prediction.timestamp,
            begin=b"",
            end=b"\n",
        )

    def document(self, prediction: ClassPrediction) -> dict[str, Any]:
        # The commonest answer: as from the base, without a dictionary for each of its parts.
        values = prediction.values
        return {
            "prediction": prediction.class_index,
            "label": prediction.label,
            "probabilities": dict(
                zip(_class_keys(len(values)), map(np.float32, values), strict=True)
            ),
            "model_version": prediction.model_version,
            "timestamp": orjson_time(prediction.timestamp),
        }


class ScoresPredictionSchema(_ClassSchema):
    """One of several classes, with scores of which only the order has a meaning."""

    numbers_member = "scores"

    scores = ByPositionField(
        "Score of each class, by its index in the model's classes. Scores are no probabilities."
    )
    model_version = _version()
    timestamp = _timestamp()
    top = _top()


class LabelsPredictionSchema(AnswerSchema):
    """Labels that don't exclude each other."""

    numbers_member = "probabilities"

    prediction = fields.List(
        fields.Integer(),
        required=True,
        attribute="indices",
        **doc("Indices of the labels that apply, none or many."),
    )
    labels = fields.List(fields.String(), required=True, **doc("Names of those labels."))
    probabilities = ByPositionField(
        "Probability of each label, by its index in the model's labels."
    )
    model_version = _version()
    timestamp = _timestamp()
    top = _top()

    def before(self, prediction: LabelsPrediction) -> dict[str, Any]:
        return {"prediction": prediction.indices, "labels": prediction.labels}


class _PredictedField(fields.Field[Any]):
    """The number of a regression, or an array of them where it has several targets."""

    _CHECK_ATTRIBUTE = False  # it is `values`, which only one field of a schema may have

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return obj.values[0] if len(obj.values) == 1 else list(obj.values)


class _ByTargetField(fields.Dict):
    """Numbers by the name of their target."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return dict(zip(obj.targets, value, strict=True))


class ValuesPredictionSchema(AnswerSchema):
    """Numbers, one for each target."""

    numbers_member = "values"

    prediction = _PredictedField(
        required=True,
        **doc(
            "The predicted number; an array where the model has several targets.",
            oneOf=[{"type": "number"}, {"type": "array", "items": {"type": "number"}}],
        ),
    )
    values = _ByTargetField(
        required=True,
        keys=fields.String(),
        values=fields.Float(),
        **doc("The predicted numbers by the names of the model's targets."),
    )
    model_version = _version()
    timestamp = _timestamp()

    def before(self, prediction: ValuesPrediction) -> dict[str, Any]:
        numbers = self.numbers(prediction)
        return {"prediction": numbers[0] if len(numbers) == 1 else numbers}

    def keys(self, prediction: ValuesPrediction) -> Sequence[str]:
        return prediction.targets


class _ArrayField(fields.Field[Any]):
    """An array of numbers, or of arrays."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return value.tolist()


class EmbeddingPredictionSchema(AnswerSchema):
    """A vector that stands for the sample."""

    numbers_member = "embedding"

    embedding = _ArrayField(
        required=True,
        attribute="values",
        **doc("The vector, or arrays of numbers of a higher rank.", type="array", items={}),
    )
    model_version = _version()
    timestamp = _timestamp()

    def numbers(self, prediction: Prediction) -> Any:
        return np.ascontiguousarray(prediction.values)

    def keys(self, prediction: Prediction) -> None:
        return None


def _predictions(schema: type[AnswerSchema]) -> Any:
    return fields.List(fields.Nested(schema), required=True)


class BatchSchema(Schema):
    """The base of the schemas of predictions for many samples, in the samples' order."""

    predictions = _predictions(AnswerSchema)
    total_samples = fields.Integer(required=True)
    model_version = fields.String(required=True)

    def __init__(self, row: AnswerSchema, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._row = row

    def encode(self, batch: Any) -> bytes:
        """Return what `dump` returns as JSON, with a newline at its end."""
        return b"".join(self.in_parts(batch))

    def in_parts(self, batch: Any) -> EncodedRows | PlainRows:
        """Return what `encode` returns in parts, each a few milliseconds of work."""
        return PlainRows.of_batch(self._row, batch, begin=BATCH_BEGIN, end=batch_end(batch))


class BatchResponseSchema(BatchSchema):
    """The predictions of a classifier with probabilities."""

    predictions = _predictions(PredictionSchema)

    def in_parts(self, batch: ClassBatch) -> EncodedRows:
        return EncodedRows(
            batch.class_indices,
            batch.answers,
            batch.classes,
            version=batch.model_version,
            timestamp=batch.timestamp,
            begin=BATCH_BEGIN,
            end=batch_end(batch),
        )


class ScoresBatchResponseSchema(BatchSchema):
    """The predictions of a classifier with scores."""

    predictions = _predictions(ScoresPredictionSchema)


class LabelsBatchResponseSchema(BatchSchema):
    """The predictions of labels that don't exclude each other."""

    predictions = _predictions(LabelsPredictionSchema)


class ValuesBatchResponseSchema(BatchSchema):
    """The predictions of a regression."""

    predictions = _predictions(ValuesPredictionSchema)


class EmbeddingBatchResponseSchema(BatchSchema):
    """The vectors of many samples."""

    predictions = _predictions(EmbeddingPredictionSchema)


BATCH_BEGIN = b'{"predictions":['


def batch_end(batch: Batch) -> bytes:
    """Return the end of the answer to many samples, behind the last of the predictions."""
    return b'],"total_samples":%d,"model_version":%b}\n' % (
        len(batch),
        orjson.dumps(batch.model_version),
    )


@dataclass(frozen=True, slots=True)
class ResponseBodies:
    """The response bodies of one task: for one sample, and for many."""

    one: AnswerSchema
    many: BatchSchema


_SCHEMAS: Mapping[str, tuple[type[AnswerSchema], type[BatchSchema]]] = {
    "classification": (PredictionSchema, BatchResponseSchema),
    "scores": (ScoresPredictionSchema, ScoresBatchResponseSchema),
    "multilabel": (LabelsPredictionSchema, LabelsBatchResponseSchema),
    "regression": (ValuesPredictionSchema, ValuesBatchResponseSchema),
    "embedding": (EmbeddingPredictionSchema, EmbeddingBatchResponseSchema),
}


@cache
def _bodies(form: str, as_number: Callable[[float], Any]) -> ResponseBodies:
    one, many = _SCHEMAS[form]
    row = one(as_number)
    return ResponseBodies(row, many(row))


def response_bodies(model: Model) -> ResponseBodies:
    """Return the response bodies of a model with features."""
    answer = model.task.answer
    assert answer is not None  # it has features
    form = "scores" if answer.role == "scores" else model.task.name
    return _bodies(form, float if answer.datatype == "FP64" else np.float32)


def all_response_bodies() -> Iterator[ResponseBodies]:
    """Yield those of every task."""
    return (_bodies(form, np.float32) for form in _SCHEMAS)


CLASSES = _bodies("classification", np.float32)
PREDICTION, BATCH_RESPONSE = CLASSES.one, CLASSES.many
