"""The inputs of any network: its own tensors, by their names."""

from __future__ import annotations

from collections.abc import Sequence

from ...model.errors import MAX_FAULTS, listed
from ...model.signature import Tensors, TensorSpec
from .arrays import count_rows, read_array
from .errors import InvalidRequest
from .request import InputTensor


class TensorInputs:
    """Reads the inputs of a request as the tensors of a network, which ``specs`` describe.

    With ``has_rows`` their first dimensions are rows, as many in each; else a request counts as
    one. One of more than ``max_inputs`` inputs is refused without a look at each.
    """

    def __init__(self, specs: Sequence[TensorSpec], *, has_rows: bool) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._has_rows = has_rows
        self.max_inputs = len(self._specs) + MAX_FAULTS

    def count_rows(self, inputs: Sequence[InputTensor]) -> int:
        """Return the number of rows in ``inputs``, by their shapes alone.

        Raises `InvalidRequest` unless they are the network's, of the right datatypes and shapes.
        """
        names = {tensor.name for tensor in inputs}
        missing = next((name for name in self._specs if name not in names), None)
        if missing is not None:
            raise InvalidRequest.at(
                ("inputs",), f"have no {missing!r}; the model takes {self._listed()}"
            )
        for sent in inputs:
            self._check(sent)
        return count_rows(inputs) if self._has_rows else 1

    def read(self, inputs: Sequence[InputTensor]) -> Tensors:
        """Return the arrays of ``inputs`` that `count_rows` has accepted; numbers that are sent in
        binary are views of the body. Raises `InvalidRequest`.
        """
        by_name = {tensor.name: tensor for tensor in inputs}
        return {name: read_array(by_name[name]) for name in self._specs}

    def _check(self, sent: InputTensor) -> None:
        spec = self._specs.get(sent.name)
        if spec is None:
            raise InvalidRequest.at(
                (*sent.path, "name"),
                f"is not an input of this model; it takes {self._listed()}",
            )
        if sent.datatype.name != spec.datatype:
            raise InvalidRequest.at(
                (*sent.path, "datatype"),
                f"must be {spec.datatype} for {spec.name!r}, not {sent.datatype.name}",
            )
        if not spec.accepts(sent.shape):
            raise InvalidRequest.at(
                (*sent.path, "shape"),
                f"must be {list(spec.shape)} for {spec.name!r}, not {list(sent.shape)}"
                + (" (-1 is any number)" if -1 in spec.shape else ""),
            )

    def _listed(self) -> str:
        return listed(map(repr, self._specs))
