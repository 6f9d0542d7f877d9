"""The fast decoder: from the bytes of a small request straight to rows.

Most requests are of a row or a few: JSON alone, with flat numbers, to a model whose rows are one
matrix of floats. Then nothing is made for an input but its numbers. Any other request, and each
with a fault in its inputs, is left to `request` and `feature_inputs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import msgspec
from msgspec import UNSET, Struct

from ...model.encoder import FeatureEncoder
from ...model.signature import Tensors
from .request import InferenceRequest, InputParameters, RequestMembers, outputs_of, wants_binary

_MAX_BYTES = 4096
"""A longer body has so many numbers that a Python object for each costs more than is saved."""


class _Input(Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: list[float | None]
    parameters: InputParameters | None = None


class _Request(RequestMembers, kw_only=True, gc=False):
    inputs: list[_Input]


_decode = msgspec.json.Decoder(_Request).decode


class FastDecoder:
    """Decodes small requests for the model of ``encoder`` if their inputs are valid, and returns
    None for any other.
    """

    def __init__(self, encoder: FeatureEncoder) -> None:
        self._encoder = encoder
        self._is_usable = encoder.is_matrix
        self._spec = encoder.tensors[0].spec
        self._positions = {name: index for index, name in enumerate(encoder.names)}
        # A column of a narrower datatype would be rounded to that first.
        self._of_columns = {self._spec.datatype, "FP64"}

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
        for sent in inputs:
            parameters = sent.parameters
            if parameters is not None and (
                parameters.binary_data_size is not None
                or parameters.shared_memory_region is not UNSET
            ):
                return None
        if len(inputs) == 1 and inputs[0].name == self._spec.name:
            return self._of_tensor(inputs[0])
        return self._of_features(inputs)

    def _of_tensor(self, sent: _Input) -> Tensors | None:
        width, values = self._encoder.width, sent.data
        rows = len(values) // width
        if not rows or sent.shape != [rows, width] or sent.datatype != self._spec.datatype:
            return None
        return self._encoder.pack(values, rows) if len(values) == rows * width else None

    def _of_features(self, inputs: Sequence[_Input]) -> Tensors | None:
        width = self._encoder.width
        columns: list[list[float | None]] = [[]] * width
        rows = len(inputs[0].data) if len(inputs) == width else 0
        for sent in inputs:
            index = self._positions.get(sent.name)
            if (
                index is None
                or columns[index]  # there already
                or len(sent.data) != rows
                or sent.shape not in ([rows], [rows, 1])
                or sent.datatype not in self._of_columns
            ):
                return None
            columns[index] = sent.data
        if not rows:
            return None
        return self._encoder.pack([*chain.from_iterable(zip(*columns, strict=True))], rows)
