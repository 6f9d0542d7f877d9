"""The tensors of any network in the protocol's terms: its own inputs and outputs, by their names.

Strings are UTF-8 on the wire and `str` in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from ...model.errors import MAX_FAULTS, OutputsTooLarge, listed
from ...model.model import Model
from ...model.signature import Signature, Tensors, TensorSpec
from .datatypes import DATATYPES, Array
from .errors import InvalidRequest
from .request import InferenceRequest, InputTensor, RequestedOutput
from .response import OutputTensor

_BYTES_PER_VALUE = 8
"""A string of so many bytes counts as one value of an answer."""


class GraphTensors:
    """Reads the inputs of a request for a network of ``signature``, and writes its outputs."""

    def __init__(self, signature: Signature) -> None:
        self._inputs = {spec.name: spec for spec in signature.inputs}
        self._outputs = {spec.name: spec for spec in signature.outputs}
        self.max_inputs = len(self._inputs) + MAX_FAULTS

    def read(self, inputs: Sequence[InputTensor]) -> Tensors:
        """Return the arrays of ``inputs``; those in binary are views of the body.

        Raises `InvalidRequest` unless they are the network's, of its datatypes and shapes: all of
        that is checked before any of them takes memory.
        """
        by_name = {tensor.name: tensor for tensor in inputs}
        missing = next((name for name in self._inputs if name not in by_name), None)
        if missing is not None:
            raise InvalidRequest.at(
                ("inputs",),
                f"have no {missing!r}; the model takes {_listed(self._inputs)}",
            )
        for tensor in inputs:
            self._check(tensor)
        return {name: _array_of(by_name[name]) for name in self._inputs}

    def check_outputs(self, outputs: Sequence[RequestedOutput]) -> None:
        """Raise `InvalidRequest` for an output that the model doesn't have, or not in that form."""
        for output in outputs:
            if output.name not in self._outputs:
                raise InvalidRequest.at(
                    (*output.path, "name"),
                    f"is not an output of this model; it has {_listed(self._outputs)}",
                )
            if output.classes:
                raise InvalidRequest.at(
                    (*output.path, "parameters", "classification"),
                    "is a parameter for the probabilities of a classifier, which this model is not",
                )

    def write(
        self, request: InferenceRequest, outputs: Tensors, max_values: int
    ) -> list[OutputTensor]:
        """Return the ``outputs`` that ``request`` asks for; by default all.

        Raises `OutputsTooLarge` if they have more than ``max_values``, before any is written.
        """
        requested = request.outputs or [
            RequestedOutput(name, (), request.is_binary) for name in self._outputs
        ]
        values = sum(outputs[output.name].size for output in requested)
        if values > max_values:
            raise OutputsTooLarge(values, max_values)
        written = [self._output(output, outputs[output.name]) for output in requested]
        values += sum(_bytes_of(output) for output in written) // _BYTES_PER_VALUE
        if values > max_values:
            raise OutputsTooLarge(values, max_values)
        return written

    def _check(self, tensor: InputTensor) -> None:
        spec = self._inputs.get(tensor.name)
        if spec is None:
            raise InvalidRequest.at(
                (*tensor.path, "name"),
                f"is not an input of this model; it takes {_listed(self._inputs)}",
            )
        if tensor.datatype.name != spec.datatype:
            raise InvalidRequest.at(
                (*tensor.path, "datatype"),
                f"must be {spec.datatype} for {spec.name!r}, not {tensor.datatype.name}",
            )
        if not spec.accepts(tensor.shape):
            raise InvalidRequest.at(
                (*tensor.path, "shape"),
                f"must be {list(spec.shape)} for {spec.name!r}, not {list(tensor.shape)}"
                + (" (-1 is any number)" if -1 in spec.shape else ""),
            )

    def _output(self, output: RequestedOutput, array: Array) -> OutputTensor:
        datatype = DATATYPES[self._outputs[output.name].datatype]
        if datatype.name == "BYTES":
            encoded = np.empty(array.size, dtype=object)
            encoded[:] = [value.encode() for value in array.reshape(-1)]
            array = encoded.reshape(array.shape)
        return OutputTensor(output.name, datatype, array, output.is_binary, output.path)


_tensors: WeakKeyDictionary[Model, GraphTensors] = WeakKeyDictionary()


def graph_of(model: Model) -> GraphTensors:
    """Return what reads and writes the tensors of ``model``; it is made once for each."""
    tensors = _tensors.get(model)
    if tensors is None:
        tensors = _tensors[model] = GraphTensors(model.signature)
    return tensors


def _listed(specs: Mapping[str, TensorSpec]) -> str:
    return listed(map(repr, specs))


def _array_of(tensor: InputTensor) -> Array:
    array = tensor.read()
    if tensor.datatype.name != "BYTES":
        return np.require(array, requirements=["C", "A"])
    strings = np.empty(array.size, dtype=object)
    try:
        strings[:] = [value.decode() for value in array.reshape(-1)]
    except UnicodeDecodeError as error:
        raise InvalidRequest.at(
            (*tensor.path, "data"), f"has a string that is not UTF-8 ({error.reason})"
        ) from None
    return strings.reshape(array.shape)


def _bytes_of(output: OutputTensor) -> int:
    """Return the bytes of the strings in an output; 0 for numbers, each of which is a value."""
    if output.datatype.name != "BYTES":
        return 0
    return sum(map(len, output.array.reshape(-1)))
