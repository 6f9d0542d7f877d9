"""The outputs of a model: those of its task where it has features, else those of its network."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import orjson

from ...model.errors import AnswerTooLarge, OutputsTooLarge, listed
from ...model.model import Model
from ...model.predictions import Batch, ClassPrediction, Prediction
from ...model.signature import LABEL, Array, Tensors, TensorSpec
from .arrays import encode_strings
from .datatypes import DATATYPES, ONLY_BINARY
from .errors import InvalidRequest
from .request import InferenceRequest, RequestedOutput
from .response import OutputTensor, only_binary

_BYTES_PER_VALUE = 8
"""A string of so many bytes counts as one value of an answer."""


class ModelOutputs:
    """Writes the outputs of ``model`` that a request asks for, and bounds their size.

    With features the first output is the answer of the task. It counts whether it is requested or
    not, and what follows from it, as the names of classes, doesn't.
    """

    def __init__(self, model: Model) -> None:
        task, specs = model.task, model.signature.outputs
        answer = task.answer.name if task.answer is not None else ""
        self._task = task
        self._datatypes = {spec.name: DATATYPES[spec.datatype] for spec in specs}
        self._has_rows = model.manifest.batch
        self._answer = answer if model.takes_features else ""
        self._following = {spec.name for spec in task.following}
        self._sizes = {
            spec.name: self._size(spec) for spec in specs if spec.name not in self._following
        }
        self._answer_size = self._sizes.pop(self._answer, 0) or 0
        self._ranked = answer if model.classes else ""
        self._classes = np.empty(len(model.classes), dtype=object)
        self._classes[:] = [name.encode() for name in model.classes]
        self._indices = np.arange(len(model.classes), dtype=np.int64)
        self._growing = {
            spec.name
            for spec in specs
            if spec.name not in self._following
            and (spec.datatype == "BYTES" or self._size(spec) is None)
        }
        self._only_binary = {spec.name for spec in specs if spec.datatype in ONLY_BINARY}
        self._all = {
            is_binary: tuple(RequestedOutput(name, (), is_binary) for name in self._datatypes)
            for is_binary in (False, True)
        }

    def requested(self, request: InferenceRequest) -> Sequence[RequestedOutput]:
        """Return the outputs that ``request`` asks for, by default all.

        Raises `InvalidRequest` for one that the model doesn't have, or not in that form.
        """
        if not request.outputs:
            if self._only_binary and not request.is_binary:
                raise only_binary(min(self._only_binary), ("outputs",))
            return self._all[request.is_binary]
        for output in request.outputs:
            if output.name not in self._datatypes:
                raise InvalidRequest.at(
                    (*output.path, "name"),
                    f"is not an output of this model; it has {listed(self._datatypes)}",
                )
            if output.classes and output.name != self._ranked:
                detail = f"is a parameter of the output {self._ranked}"
                if not self._ranked:
                    detail = "is a parameter for the answer of a classifier, which this model isn't"
                raise InvalidRequest.at((*output.path, "parameters", "classification"), detail)
            if output.name in self._only_binary and not output.is_binary:
                raise only_binary(output.name, output.path)
        return request.outputs

    def values_per_row(self, requested: Sequence[RequestedOutput] = ()) -> int:
        """Return the number of values in the answer to a row (or to a request, where there are no
        rows), as far as it is known before the network runs; by default of all outputs.
        """
        values = self._answer_size
        for output in requested or self._all[False]:
            values += self._sizes.get(output.name) or 0
            if output.classes:
                longest = max(map(len, self._classes))
                ranked = min(output.classes, len(self._classes))
                values += ranked * (1 + longest // _BYTES_PER_VALUE)
        return values

    def check_size(self, requested: Sequence[RequestedOutput], rows: int, max_values: int) -> None:
        """Raise `AnswerTooLarge` if the answer to so many rows would have more than ``max_values``,
        or `OutputsTooLarge` where there are no rows to send fewer of.
        """
        values = self.values_per_row(requested)
        if rows * values > max_values:
            if self._has_rows:
                raise AnswerTooLarge(rows, values, max_values)
            raise OutputsTooLarge(values, max_values)

    def of_predictions(
        self,
        outputs: Tensors,
        predictions: Prediction | Batch,
        requested: Sequence[RequestedOutput],
    ) -> Tensors:
        """Return the outputs of a model with features: those of its network, and what is
        ``requested`` of those that follow from the ``predictions``; `str` are as on the wire.
        """
        found = {**outputs, self._answer: self._task.answers(outputs)}
        for output in requested:
            if output.name in self._following:
                found[output.name] = self._follow(output.name, predictions)
        return found

    def _follow(self, name: str, predictions: Prediction | Batch) -> Array:
        if isinstance(predictions, ClassPrediction):  # a view costs less than an array of its own
            row = slice(predictions.class_index, predictions.class_index + 1)
            return self._classes[row] if name == LABEL else self._indices[row]
        decided = predictions.decided
        assert decided is not None  # something follows from it
        return self._classes[decided] if name == LABEL else decided.astype(np.int64, copy=False)

    def write(
        self, requested: Sequence[RequestedOutput], found: Tensors, max_values: int
    ) -> list[OutputTensor]:
        """Return the ``requested`` outputs, of those that were ``found``.

        Raises `OutputsTooLarge` if those whose size wasn't known before have more than
        ``max_values``.
        """
        grown = [output for output in requested if output.name in self._growing]
        if not grown:
            return [self._output(output, found[output.name]) for output in requested]
        values = sum(found[output.name].size for output in grown)
        if values > max_values:
            raise OutputsTooLarge(values, max_values)
        written = [self._output(output, found[output.name]) for output in requested]
        values += sum(map(_bytes_of, written)) // _BYTES_PER_VALUE
        if values > max_values:
            raise OutputsTooLarge(values, max_values)
        return written

    def _size(self, spec: TensorSpec) -> int | None:
        """Return the number of values in an output, of one row if there are rows; None if it varies
        otherwise.
        """
        shape = spec.shape[1:] if self._has_rows else spec.shape
        return None if -1 in shape else prod(shape)

    def _output(self, output: RequestedOutput, array: Array) -> OutputTensor:
        datatype = self._datatypes[output.name]
        if output.classes:
            datatype, array = DATATYPES["BYTES"], self._top_classes(array, output.classes)
        elif datatype.name == "BYTES" and output.name not in self._following:
            array = encode_strings(array)
        return OutputTensor(output.name, datatype, array, output.is_binary, output.path)

    def _top_classes(self, values: Array, count: int) -> Array:
        """Return the ``count`` classes of each row with the largest values, as
        ``value:index:label``.
        """
        order = np.argsort(-values, axis=1, kind="stable")[:, :count]
        largest = np.take_along_axis(values, order, axis=1).reshape(-1)
        written = orjson.dumps(largest, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
        strings = np.empty(order.size, dtype=object)
        strings[:] = [
            b"%b:%d:%b" % (value, index, self._classes[index])
            for value, index in zip(written, order.reshape(-1).tolist(), strict=False)
        ]
        return strings.reshape(order.shape)


def _bytes_of(output: OutputTensor) -> int:
    """Return the bytes of the strings in an output; 0 for numbers, each of which is a value."""
    if output.datatype.name != "BYTES":
        return 0
    return sum(map(len, output.array.reshape(-1)))
