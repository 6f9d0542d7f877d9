"""The fast decoder: from the bytes of a small request straight to rows.

Most requests are of a row or a few: JSON alone, with flat numbers, to a model whose rows are one
matrix of floats. Then nothing is made for an input but its numbers. Any other request, and each
with a fault in its inputs, is left to `request` and `feature_inputs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import msgspec
import numpy as np
from msgspec import UNSET, Struct

from ...model.encoder import FeatureEncoder
from ...model.signature import Tensors
from .datatypes import DATATYPES
from .request import InferenceRequest, InputParameters, RequestMembers, outputs_of, wants_binary

_MAX_BYTES = 4096
"""A longer body has so many numbers that a Python object for each costs more than is saved."""


class _Input(Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: list[int | float | None]
    parameters: InputParameters | None = None

    @property
    def is_json(self) -> bool:
        """True if the data are nowhere else."""
        parameters = self.parameters
        return parameters is None or (
            parameters.binary_data_size is None and parameters.shared_memory_region is UNSET
        )


class _Request(RequestMembers, kw_only=True, gc=False):
    inputs: list[_Input]


_EXACT = 2**53
_INTEGERS = {
    datatype.name: range(
        max(int(np.iinfo(datatype.dtype).min), -_EXACT),
        min(int(np.iinfo(datatype.dtype).max), _EXACT) + 1,
    )
    for datatype in DATATYPES.values()
    if datatype.dtype.kind in "iu"
}
"""The integers of each datatype that float64 holds, too."""

_decode = msgspec.json.Decoder(_Request).decode


class FastDecoder:
    """Decodes small requests for the model of ``encoder`` if their inputs are valid, and returns
    None for any other.
    """

    def __init__(self, encoder: FeatureEncoder) -> None:
        self._encoder = encoder
        self._is_usable = encoder.is_matrix
        self._spec = encoder.tensors[0].spec
        # One of a narrower datatype would be rounded to that first.
        self._floats = {self._spec.datatype, "FP64"}

    def decode(self, body: bytes) -> InferenceRequest | None:
        """Return the request, with its rows, NaN for null. Raises `InvalidRequest` for what is
        wrong beside the inputs.
        """
        if not self._is_usable or len(body) > _MAX_BYTES:
            return None
        try:
            if not body.isascii():
                body.decode()  # what is skipped is not looked into
            sent = _decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        rows = self._rows(sent.inputs)
        if rows is None:
            return None
        is_binary = wants_binary(sent)
        return InferenceRequest((), outputs_of(sent, is_binary=is_binary), sent.id, is_binary, rows)

    def _rows(self, inputs: Sequence[_Input]) -> Tensors | None:
        if len(inputs) == 1 and inputs[0].name == self._spec.name:
            return self._of_tensor(inputs[0])
        return self._of_features({sent.name: sent for sent in inputs}, len(inputs))

    def _of_tensor(self, sent: _Input) -> Tensors | None:
        width, values = self._encoder.width, sent.data
        rows = len(values) // width
        if (
            not rows
            or len(values) != rows * width
            or sent.shape != [rows, width]
            or sent.datatype != self._spec.datatype
            or not sent.is_json
        ):
            return None
        return self._encoder.pack(values, rows)

    def _of_features(self, by_name: Mapping[str, _Input], count: int) -> Tensors | None:
        width = self._encoder.width
        if not len(by_name) == count == width:
            return None
        try:
            inputs = self._encoder.columns(by_name)
        except KeyError:
            return None
        rows = len(inputs[0].data)
        shapes = ([rows], [rows, 1])
        columns = [
            sent.data
            for sent in inputs
            if sent.shape in shapes
            and len(sent.data) == rows
            and (sent.datatype in self._floats or _are_integers(sent))
            and sent.is_json
        ]
        if not rows or len(columns) < width:
            return None
        return self._encoder.pack([*chain.from_iterable(zip(*columns, strict=True))], rows)


def _are_integers(sent: _Input) -> bool:
    """Return True for an input of a datatype of integers, and such that float64 holds exactly."""
    bounds = _INTEGERS.get(sent.datatype)
    return bounds is not None and all(type(each) is int and each in bounds for each in sent.data)
