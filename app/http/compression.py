"""Compressed bodies, inflated within a limit."""

from __future__ import annotations

import zlib

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
ENCODINGS = tuple(_WINDOW_BITS)
"""Values of Content-Encoding that `inflate` knows; deflate is the format of zlib (RFC 9110)."""


class NotInflatable(ValueError):
    """A body that its Content-Encoding doesn't describe; the message says why not."""


class TooLarge(ValueError):
    """A body that exceeds the limit when it is inflated."""


def inflate(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Return ``body`` without its compression, which is one of `ENCODINGS`.

    It takes memory for ``max_bytes`` at most. Raises `NotInflatable` and `TooLarge`.
    """
    inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        inflated = inflater.decompress(body, max_bytes + 1)
    except zlib.error:
        raise NotInflatable(f"it is not {encoding}") from None
    if len(inflated) > max_bytes:
        raise TooLarge
    if not inflater.eof:
        raise NotInflatable("it ends early")
    if inflater.unused_data:
        raise NotInflatable(f"{len(inflater.unused_data):,} bytes follow its end")
    return inflated
