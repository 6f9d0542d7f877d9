"""The protocol's datatypes, and the arrays that hold their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidRequest, Path

Array = NDArray[Any]

MAX_RANK = 32
"""Dimensions of a tensor at most."""
_MAX_BYTES = 2**63 - 1
"""The most bytes that numpy can address, whatever memory there is."""


@dataclass(frozen=True, slots=True)
class Datatype:
    """A datatype of the protocol.

    ``dtype`` is that of the arrays that hold its values, and ``itemsize`` the bytes of a value on
    the wire; 0 for BYTES, each value of which has a length of its own.
    """

    name: str
    dtype: np.dtype[Any]
    itemsize: int

    @property
    def is_number(self) -> bool:
        """Return True if its values are numbers; those of BOOL and BYTES are not."""
        return self.dtype.kind in "fiu"


def _all() -> Mapping[str, Datatype]:
    codes = {"BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
    for size in (1, 2, 4, 8):
        codes |= {f"INT{8 * size}": f"<i{size}", f"UINT{8 * size}": f"<u{size}"}
    found = {
        name: Datatype(name, np.dtype(code), np.dtype(code).itemsize)
        for name, code in codes.items()
    }
    found["BF16"] = Datatype("BF16", np.dtype("<f4"), 2)  # numpy has none; float32 holds it exactly
    found["BYTES"] = Datatype("BYTES", np.dtype(object), 0)
    return found


DATATYPES = _all()
"""By their names. An array of BYTES holds `bytes`."""
ONLY_BINARY = frozenset({"BF16"})
"""The datatypes that JSON doesn't hold, as in Triton."""


def count_values(shape: Sequence[int], datatype: Datatype, path: Path) -> int:
    """Return how many values a tensor of ``shape`` has; takes no memory for them.

    Raises `InvalidRequest` with ``path`` where no array can have this shape.
    """
    size = prod(shape)
    # All dimensions but those of 0, as numpy multiplies them.
    whole = size or prod(dimension or 1 for dimension in shape)
    if whole * max(datatype.itemsize, 8) > _MAX_BYTES:
        raise InvalidRequest.at(path, "is larger than any tensor can be")
    return size
