"""The fast decoder: from the bytes of a valid body straight to rows.

Nearly every body is valid, and then no dictionary is needed. Decoding stops at the first fault; the
schemas then describe what is wrong, or accept the body after all.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import astuple

from ...model.columns import FLOAT_CODES
from ...model.encoder import FeatureEncoder
from ...model.signature import Tensors
from .samples import row_struct


class FastDecoder:
    """Decodes the valid bodies of a model, and returns None for any other.

    ``max_rows`` is the largest number of rows that it decodes.
    """

    def __init__(self, encoder: FeatureEncoder, max_rows: int) -> None:
        self._encoder = encoder
        self._max_rows = max_rows
        self._decode_one: Any = None
        self._decode_many: Any = None
        row = row_struct(encoder)
        if row is None:
            return
        self._decode_one = _decoder("features", row)
        self._decode_many = _decoder("samples", list[row])  # type: ignore[valid-type]
        columns = encoder.tensors[0]
        self._name, self._dtype, self._width = columns.spec.name, columns.dtype, encoder.width
        self._code = FLOAT_CODES[columns.spec.datatype] if encoder.is_matrix else ""

    def row(self, body: bytes) -> Tensors | None:
        """Return the row of ``{"features": {...}}``, with NaN for null where that can be."""
        if self._decode_one is None:
            return None
        try:
            sample = self._decode_one(body).content
        except (msgspec.MsgspecError, ValueError):  # the latter for names that aren't UTF-8
            return None
        return self._rows(astuple(sample), 1)

    def rows(self, body: bytes) -> Tensors | None:
        """Return the rows of ``{"samples": [{...}, ...]}``."""
        if self._decode_many is None:
            return None
        try:
            samples = self._decode_many(body).content
        except (msgspec.MsgspecError, ValueError):
            return None
        if len(samples) > self._max_rows:
            return None
        return self._rows(list(chain.from_iterable(map(astuple, samples))), len(samples))

    def _rows(self, values: Sequence[Any], rows: int) -> Tensors | None:
        if not self._code:
            return self._encoder.assemble(values, rows)
        try:
            # Rounds to float32 as numpy does, and refuses what rounds to infinity.
            packed = bytearray(struct.pack(f"={len(values)}{self._code}", *values))
        except OverflowError:
            return None
        except struct.error:  # None is not a number to it
            return self._encoder.assemble(values, rows)
        matrix = np.frombuffer(packed, dtype=self._dtype).reshape(rows, self._width)
        return {self._name: matrix}


def _decoder(name: str, content: Any) -> Any:
    """Return a decoder of objects whose only member is ``name``."""
    body = msgspec.defstruct(
        "Body", [("content", content)], rename={"content": name}, forbid_unknown_fields=True
    )
    return msgspec.json.Decoder(body).decode
