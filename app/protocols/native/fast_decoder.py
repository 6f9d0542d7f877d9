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
from numpy.typing import NDArray

from ...model.features import FLOAT32_OVERFLOW, FeatureEncoder
from .samples import row_struct


class FastDecoder:
    """Decodes the valid bodies of a model, and returns None for any other.

    ``max_rows`` is the largest number of rows that it decodes.
    """

    def __init__(self, encoder: FeatureEncoder, max_rows: int) -> None:
        self._width = encoder.width
        self._max_rows = max_rows
        self._decode_one: Any = None
        self._decode_many: Any = None
        row = row_struct(encoder)
        if row is None:
            return
        self._decode_one = _decoder("features", row)
        self._decode_many = _decoder("samples", list[row])  # type: ignore[valid-type]

    def row(self, body: bytes) -> NDArray[np.float32] | None:
        """Return the row ``(1, width)`` of ``{"features": {...}}``, NaN for null."""
        if self._decode_one is None:
            return None
        try:
            sample = self._decode_one(body).content
        except (msgspec.MsgspecError, ValueError):  # the latter for names that aren't UTF-8
            return None
        return self._matrix(astuple(sample), 1)

    def matrix(self, body: bytes) -> NDArray[np.float32] | None:
        """Return the rows ``(n, width)`` of ``{"samples": [{...}, ...]}``, NaN for null."""
        if self._decode_many is None:
            return None
        try:
            samples = self._decode_many(body).content
        except (msgspec.MsgspecError, ValueError):
            return None
        if len(samples) > self._max_rows:
            return None
        return self._matrix(list(chain.from_iterable(map(astuple, samples))), len(samples))

    def _matrix(self, values: Sequence[float | None], rows: int) -> NDArray[np.float32] | None:
        try:
            # Rounds to float32 as numpy does, and refuses what rounds to infinity.
            packed = bytearray(struct.pack(f"={len(values)}f", *values))
        except OverflowError:
            return None
        except struct.error:  # None is not a number to it
            wide = np.array(values, dtype=np.float64)
            if (np.abs(wide) >= FLOAT32_OVERFLOW).any():  # no NaN was sent: JSON has none
                return None
            return wide.astype(np.float32).reshape(rows, self._width)
        return np.frombuffer(packed, dtype=np.float32).reshape(rows, self._width)


def _decoder(name: str, content: Any) -> Any:
    """Return a decoder of objects whose only member is ``name``."""
    body = msgspec.defstruct(
        "Body", [("content", content)], rename={"content": name}, forbid_unknown_fields=True
    )
    return msgspec.json.Decoder(body).decode
