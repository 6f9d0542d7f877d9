"""bfloat16, which numpy lacks: the upper half of a float32, which holds each of its values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_bits(array: NDArray[Any]) -> NDArray[np.uint16]:
    """Return numbers as the bits of bfloat16, rounded to the nearest, half to even."""
    bits = np.ascontiguousarray(array, dtype="<f4").view("<u4")
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    # A NaN stays one, whose upper half might have rounded to infinity.
    found = np.where(np.isnan(array), bits >> 16 | 0x40, rounded).astype("<u2")
    return found.reshape(array.shape)


def from_bits(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the float32 of the bits of bfloat16, exactly."""
    return (bits.astype("<u4") << 16).view("<f4").reshape(bits.shape)


def rounded(array: NDArray[Any]) -> NDArray[np.float32]:
    """Return float32 numbers of which each is one of bfloat16, the nearest."""
    return from_bits(to_bits(array))
