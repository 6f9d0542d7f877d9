"""The most probable classes or labels of a prediction, where a caller asks for them: ``?top=5``."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nlargest
from typing import Any
from urllib.parse import parse_qs

import orjson

from ...model.model import Model
from ...model.predictions import Batch, Prediction
from .plain_answers import PART_VALUES, PlainRows
from .predictions import BATCH_BEGIN, AnswerSchema, Parts, batch_end

_PARAMETER = "top"
_LONGEST_NUMBER = 1000
_LINE = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


class InvalidTop(ValueError):
    """``?top`` is not how many classes this model could return; the message is a sentence."""


def requested_top(query: str, model: Model) -> int:
    """Return how many of the most probable classes or labels the answer is to have; 0 for none.

    The URL says it, or else the bundle. Raises `InvalidTop`.
    """
    names = model.classes or model.manifest.labels
    said = parse_qs(query, keep_blank_values=True).get(_PARAMETER) if _PARAMETER in query else None
    if said is None:
        return min(model.manifest.top, len(names))
    text = said[-1]
    if not names:
        raise InvalidTop("top is for models with classes or labels, and this one has none.")
    if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER):
        raise InvalidTop("top must be how many of the most probable classes to return, as top=5.")
    return min(int(text), len(names))


class TopAnswers:
    """Writes the answers of ``schema`` with the ``top`` most probable classes or labels of a model
    at the end.
    """

    def __init__(self, schema: AnswerSchema, model: Model, top: int) -> None:
        self.numbers_member = schema.numbers_member
        self.before, self.numbers, self.keys = schema.before, schema.numbers, schema.keys
        self._schema, self._top = schema, top
        self._names = model.task.columns or ()
        self._number = "score" if schema.numbers_member == "scores" else "probability"

    def document(self, prediction: Any) -> dict[str, Any]:
        """Return the members of a prediction, for orjson."""
        return {**self._schema.document(prediction), "top": self._best(prediction)}

    def after(self, prediction: Any) -> dict[str, Any]:
        """Return the members behind the numbers."""
        return {**self._schema.after(prediction), "top": self._best(prediction)}

    def of_one(self, prediction: Prediction) -> Parts:
        """Return the JSON of the answer to one sample, in parts."""
        values = prediction.values
        if len(values) * 2 <= PART_VALUES:
            return (orjson.dumps(self.document(prediction), option=_LINE),)
        return PlainRows(self, lambda *_: [prediction], 1, (len(values),))

    def of_batch(self, batch: Batch) -> Parts:
        """Return the JSON of the answer to many samples, in parts."""
        return PlainRows.of_batch(self, batch, begin=BATCH_BEGIN, end=batch_end(batch))

    def _best(self, prediction: Any) -> list[Mapping[str, Any]]:
        values = prediction.values
        best = nlargest(self._top, range(len(values)), key=values.__getitem__)
        return [
            {
                "label": self._names[index],
                "class": index,
                self._number: self._schema.as_number(values[index]),
            }
            for index in best
        ]
