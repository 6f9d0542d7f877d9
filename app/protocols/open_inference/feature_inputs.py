"""The inputs of a model with features: the tensors of its network, or one input for each feature.

The latter is how clients send the columns of a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...model.column_arrays import ArrayFault, ColumnArrays, FaultyArray
from ...model.columns import UNKNOWN_CATEGORY
from ...model.encoder import FeatureEncoder
from ...model.errors import MAX_FAULTS, Fault, listed
from ...model.feature_faults import Guesses, describe_mismatch
from ...model.signature import Array, Tensors
from .arrays import count_rows, read_array, read_column
from .errors import InvalidRequest
from .request import InputTensor

_KINDS = {
    "fiu": "that of a number",
    "b": "BOOL",
    "bf": "BOOL, or that of a float for null",
    "O": "BYTES",
}
"""By numpy's kinds of the arrays that hold a feature, the datatypes it is sent in."""


class FeatureInputs:
    """Reads the inputs of a request as rows, whose features are those of ``encoder``.

    A request of more than ``max_inputs`` inputs is refused without a look at each.
    """

    def __init__(self, encoder: FeatureEncoder) -> None:
        self._tensors = {each.spec.name: ColumnArrays(each) for each in encoder.tensors}
        self._alike = {
            name
            for name, tensor in self._tensors.items()
            if [feature.name for feature in tensor.features] == [name]
        }
        self._names = encoder.names
        self._features = {
            feature.name: (tensor, index)
            for tensor in self._tensors.values()
            for index, feature in enumerate(tensor.features)
        }
        self.max_inputs = max(len(self._features), len(self._tensors)) + MAX_FAULTS

    def count_rows(self, inputs: Sequence[InputTensor]) -> int:
        """Return the number of rows in ``inputs``, by their shapes alone.

        Raises `InvalidRequest` unless they are the model's, of the right datatypes and shapes.
        """
        by_name = {tensor.name: tensor for tensor in inputs}
        are_tensors = by_name.keys() == self._tensors.keys()
        if not are_tensors and by_name.keys() != self._features.keys():
            raise self._mismatch(by_name)
        for sent in inputs:
            if are_tensors and self._is_tensor(sent):
                self._check_tensor(sent)
            else:
                self._check_feature(sent)
        return count_rows(inputs)

    def read(self, inputs: Sequence[InputTensor]) -> Tensors:
        """Return the rows of ``inputs`` that `count_rows` has accepted, NaN for null. Numbers that
        are sent in binary, as the network takes them, are a view of the body.

        Raises `InvalidRequest` for values that aren't their feature's.
        """
        by_name = {tensor.name: tensor for tensor in inputs}
        are_tensors = by_name.keys() == self._tensors.keys()
        rows = {}
        for name, tensor in self._tensors.items():
            if are_tensors and self._is_tensor(by_name[name]):
                rows[name] = _read_tensor(by_name[name], tensor)
            else:
                rows[name] = _join([by_name[each.name] for each in tensor.features], tensor)
        return rows

    def _is_tensor(self, sent: InputTensor) -> bool:
        """Return True if an input with the name of a tensor is that tensor, by its datatype, and
        not the feature of the same name, which is all of it.
        """
        datatype = sent.datatype.name
        return sent.name not in self._alike or (
            datatype == self._tensors[sent.name].spec.datatype and datatype != "BYTES"
        )

    def _check_tensor(self, sent: InputTensor) -> None:
        spec = self._tensors[sent.name].spec
        if sent.datatype.name != spec.datatype:
            raise InvalidRequest.at(
                (*sent.path, "datatype"),
                f"must be {spec.datatype} for {spec.name!r}, not {sent.datatype.name}",
            )
        width = len(self._tensors[sent.name].features)
        if not spec.accepts(sent.shape) and not (width == 1 and _is_column(sent)):
            wanted = ", ".join(["rows", *map(str, spec.shape[1:])])
            raise InvalidRequest.at(
                (*sent.path, "shape"),
                f"must be [{wanted}] for {spec.name!r}, not {list(sent.shape)}",
            )

    def _check_feature(self, sent: InputTensor) -> None:
        tensor, index = self._features[sent.name]
        kinds = tensor.kinds(index)
        if sent.datatype.dtype.kind not in kinds:
            raise InvalidRequest.at(
                (*sent.path, "datatype"),
                f"must be {_KINDS[kinds]}, not {sent.datatype.name}",
            )
        if not _is_column(sent):
            raise InvalidRequest.at(
                (*sent.path, "shape"),
                f"must be [rows] or [rows, 1] for a feature, not {list(sent.shape)}",
            )

    def _mismatch(self, by_name: Mapping[str, InputTensor]) -> InvalidRequest:
        """Return the error for inputs that are neither the tensors nor exactly the features."""
        missing = [name for name in self._names if name not in by_name]
        unknown = [tensor for name, tensor in by_name.items() if name not in self._features]
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
        tensors = listed(map(repr, self._tensors))
        form = f"one input {tensors}" if len(self._tensors) == 1 else f"the inputs {tensors}"
        return InvalidRequest(faults, f"{sentence} Send {form}, or one for each feature.")


def _is_column(sent: InputTensor) -> bool:
    return len(sent.shape) > 0 and sent.shape[1:] in ((), (1,))


def _read_tensor(sent: InputTensor, tensor: ColumnArrays) -> Array:
    """Return an input as the tensor that it is, of one more or one fewer dimension of 1 where it is
    a column.
    """
    array = read_array(sent).reshape(tensor.shape)
    try:
        tensor.check(array)
    except FaultyArray as error:
        width = len(tensor.features)
        faults = [
            Fault((*sent.path, "data", fault.row * width + fault.column), detail)
            for fault, detail in _worded(error.faults, tensor)
        ]
        raise InvalidRequest(faults) from None
    return array


def _join(columns: Sequence[InputTensor], tensor: ColumnArrays) -> Array:
    """Return the tensor whose features are ``columns``."""
    try:
        return tensor.join([read_column(sent) for sent in columns])
    except FaultyArray as error:
        faults = [
            Fault((*columns[fault.column].path, "data", fault.row), detail)
            for fault, detail in _worded(error.faults, tensor)
        ]
        raise InvalidRequest(faults) from None


def _worded(faults: Sequence[ArrayFault], tensor: ColumnArrays) -> Iterator[tuple[ArrayFault, str]]:
    """Yield faults with their details, which suggest what an unknown category may be."""
    guesses = Guesses({})
    for fault in faults:
        detail = fault.detail
        if detail == UNKNOWN_CATEGORY:
            detail += guesses.category(fault.value, tensor.features[fault.column].categories)
        yield fault, detail
