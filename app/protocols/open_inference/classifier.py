"""A classifier of named numbers in the protocol's terms: tensors to rows, predictions to tensors.

It takes the one input of its signature, with a column for each feature; or one input for each
feature by its name, which is how clients send the columns of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import orjson
from numpy.typing import NDArray

from ...model.errors import MAX_FAULTS, Fault
from ...model.feature_faults import describe_mismatch
from ...model.model import Model
from ...model.predictions import Batch, ClassBatch
from ...model.signature import FEATURES, LABEL, PREDICTION, PROBABILITIES
from .datatypes import DATATYPES, Array
from .errors import InvalidRequest, Path
from .request import InferenceRequest, InputTensor, RequestedOutput
from .response import OutputTensor

Matrix = NDArray[np.float32]

_BYTES_PER_VALUE = 8
"""A string of so many bytes counts as one value of an answer."""


class ClassifierTensors:
    """Reads the inputs of a request for ``model``, and writes the outputs of its predictions.

    A request of more than ``max_inputs`` inputs is refused without a look at each.
    """

    def __init__(self, model: Model) -> None:
        self._encoder = model.encoder
        self._names = frozenset(model.encoder.names)
        self._outputs = {spec.name: spec for spec in model.signature.outputs}
        self._labels = np.empty(len(model.classes), dtype=object)
        self._labels[:] = [name.encode() for name in model.classes]
        self.max_inputs = model.encoder.width + MAX_FAULTS

    def count_rows(self, inputs: Sequence[InputTensor]) -> int:
        """Return the number of rows in ``inputs``, by their shapes alone.

        Raises `InvalidRequest` unless they are the model's, of the right datatypes and shapes.
        """
        if self._is_one_tensor(inputs):
            return self._rows_of_one_tensor(inputs[0])
        by_name = {tensor.name: tensor for tensor in inputs}
        if by_name.keys() != self._names:
            raise self._mismatch(by_name)
        first = self._encoder.names[0]
        rows = _rows_of_column(by_name[first])
        for tensor in inputs:
            if _rows_of_column(tensor) != rows:
                raise InvalidRequest.at(
                    (*tensor.path, "shape"),
                    f"is that of {tensor.size:,} rows, and {first!r} has {rows:,}",
                )
        return rows

    def read(self, inputs: Sequence[InputTensor]) -> Matrix:
        """Return the rows of ``inputs`` that `count_rows` has accepted: float32 ``(n, features)``,
        NaN for null. They are a view of the body if it has them in this form.

        Raises `InvalidRequest` for values that are not numbers, or not finite as float32.
        """
        width = self._encoder.width
        if self._is_one_tensor(inputs):
            path = inputs[0].path
            matrix: Matrix = np.require(inputs[0].read(), requirements=["C", "A"])
            self._check(matrix, lambda row, column: (*path, "data", row * width + column))
            return matrix
        by_name = {tensor.name: tensor for tensor in inputs}
        columns = [by_name[name] for name in self._encoder.names]
        matrix = np.empty((columns[0].size, width), dtype=np.float32)
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
            for index, tensor in enumerate(columns):
                matrix[:, index] = tensor.read().reshape(-1)
        self._check(matrix, lambda row, column: (*columns[column].path, "data", row))
        return matrix

    def check_outputs(self, outputs: Sequence[RequestedOutput]) -> None:
        """Raise `InvalidRequest` for an output that the model doesn't have, or not in that form."""
        for output in outputs:
            if output.name not in self._outputs:
                raise InvalidRequest.at(
                    (*output.path, "name"),
                    f"is not an output of this model; it has {', '.join(self._outputs)}",
                )
            if output.classes and output.name != PROBABILITIES:
                raise InvalidRequest.at(
                    (*output.path, "parameters", "classification"),
                    f"is a parameter of the output {PROBABILITIES}",
                )

    def values_per_row(self, outputs: Sequence[RequestedOutput]) -> int:
        """Return the number of values in the answer to a row, to be held to a limit."""
        classes = len(self._labels)
        values = classes
        for output in outputs:
            if output.classes:
                longest = max(map(len, self._labels))
                values += min(output.classes, classes) * (1 + longest // _BYTES_PER_VALUE)
        return values

    def write(self, request: InferenceRequest, batch: Batch) -> list[OutputTensor]:
        """Return the outputs of ``batch`` that ``request`` asks for; by default all."""
        requested = request.outputs or [
            RequestedOutput(name, (), request.is_binary) for name in self._outputs
        ]
        return [self._output(output, batch) for output in requested]

    def _output(self, output: RequestedOutput, batch: Batch) -> OutputTensor:
        assert isinstance(batch, ClassBatch)
        datatype = self._outputs[output.name].datatype
        if output.classes:
            datatype, array = "BYTES", self._top_classes(batch.answers, output.classes)
        elif output.name == PROBABILITIES:
            array = batch.answers
        elif output.name == PREDICTION:
            array = batch.class_indices.astype(np.int64, copy=False)
        else:
            assert output.name == LABEL
            array = self._labels[batch.class_indices]
        return OutputTensor(output.name, DATATYPES[datatype], array, output.is_binary, output.path)

    def _top_classes(self, probabilities: Matrix, count: int) -> Array:
        """Return the ``count`` most probable classes of each row, as ``value:index:label``."""
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
        values = np.take_along_axis(probabilities, order, axis=1).reshape(-1)
        written = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
        strings = np.empty(order.size, dtype=object)
        strings[:] = [
            b"%b:%d:%b" % (value, index, self._labels[index])
            for value, index in zip(written, order.reshape(-1).tolist(), strict=False)
        ]
        return strings.reshape(order.shape)

    def _is_one_tensor(self, inputs: Sequence[InputTensor]) -> bool:
        """Return True unless each input is to be a feature; the only one may have that name."""
        return [tensor.name for tensor in inputs] == [FEATURES] and self._names != {FEATURES}

    def _rows_of_one_tensor(self, tensor: InputTensor) -> int:
        if tensor.datatype.name != "FP32":
            raise InvalidRequest.at(
                (*tensor.path, "datatype"),
                f"must be FP32 for {FEATURES!r}, not {tensor.datatype.name}",
            )
        shape, width = tensor.shape, self._encoder.width
        if len(shape) != 2 or shape[1] != width:
            raise InvalidRequest.at(
                (*tensor.path, "shape"),
                f"must be [rows, {width}] for {FEATURES!r}, not {list(shape)}",
            )
        return shape[0]

    def _mismatch(self, by_name: Mapping[str, InputTensor]) -> InvalidRequest:
        """Return the error for inputs that are not exactly the features."""
        missing = [name for name in self._encoder.names if name not in by_name]
        unknown = [tensor for name, tensor in by_name.items() if name not in self._names]
        sentence = describe_mismatch(
            [
                *(Fault((name,), "is missing", True) for name in missing),
                *(Fault((tensor.name,), "is unknown", True) for tensor in unknown),
            ]
        )
        faults = [
            *(Fault(("inputs",), f"has no input {name!r}") for name in missing[:MAX_FAULTS]),
            *(Fault((*each.path, "name"), "is not a feature of this model") for each in unknown),
        ]
        return InvalidRequest(
            faults, f"{sentence} Send one input {FEATURES!r}, or one for each feature."
        )

    def _check(self, matrix: Matrix, path: Callable[[int, int], Path]) -> None:
        """Raise `InvalidRequest` for values that are not finite, and not null where it is accepted.

        ``path`` returns that of the value at a row and a column.
        """
        if not np.isfinite(matrix).all():
            faults = list(self._faults(matrix, path))
            if faults:
                raise InvalidRequest(faults)

    def _faults(self, matrix: Matrix, path: Callable[[int, int], Path]) -> Iterator[Fault]:
        is_null = np.isnan(matrix)
        is_wrong = ~np.isfinite(matrix) & ~(is_null & self._encoder.tensors[0].nullable)
        for row, column in np.argwhere(is_wrong)[:MAX_FAULTS].tolist():
            name = self._encoder.names[column]
            if is_null[row, column]:
                detail = f"must be a number; null (NaN) is not accepted for {name!r}"
            else:
                detail = f"must be finite as a 32-bit float, for {name!r}"
            yield Fault(path(row, column), detail)


_tensors: WeakKeyDictionary[Model, ClassifierTensors] = WeakKeyDictionary()


def tensors_of(model: Model) -> ClassifierTensors:
    """Return what reads and writes the tensors of ``model``; it is made once for each."""
    tensors = _tensors.get(model)
    if tensors is None:
        tensors = _tensors[model] = ClassifierTensors(model)
    return tensors


def _rows_of_column(tensor: InputTensor) -> int:
    if not tensor.datatype.is_number:
        raise InvalidRequest.at(
            (*tensor.path, "datatype"), f"must be that of a number, not {tensor.datatype.name}"
        )
    shape = tensor.shape
    if shape[1:] not in ((), (1,)) or not shape:
        raise InvalidRequest.at(
            (*tensor.path, "shape"), f"must be [rows] or [rows, 1] for a feature, not {list(shape)}"
        )
    return shape[0]
