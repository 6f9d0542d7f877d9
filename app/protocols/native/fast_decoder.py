"""The fast decoder: from the bytes of a valid body straight to rows.

Nearly every body is valid, and then no dictionary is needed. Decoding stops at the first fault; the
schemas then describe what is wrong, or accept the body after all.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import msgspec
from msgspec.structs import astuple

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

    def row(self, body: bytes) -> Tensors | None:
        """Return the row of ``{"features": {...}}``, with NaN for null where that can be."""
        if self._decode_one is None:
            return None
        try:
            sample = self._decode_one(body).content
        except (msgspec.MsgspecError, ValueError):  # the latter for names that aren't UTF-8
            return None
        return self._encoder.pack(astuple(sample), 1)

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
        return self._encoder.pack(list(chain.from_iterable(map(astuple, samples))), len(samples))


def _decoder(name: str, content: Any) -> Any:
    """Return a decoder of objects whose only member is ``name``."""
    body = msgspec.defstruct(
        "Body", [("content", content)], rename={"content": name}, forbid_unknown_fields=True
    )
    return msgspec.json.Decoder(body).decode
