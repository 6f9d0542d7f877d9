"""Compressed bodies: what they become, and how much of it."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from app.http.compression import NotInflatable, TooLarge, inflate

TEXT = b"0123456789" * 100


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_body_is_what_was_compressed(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    assert inflate(compress(TEXT), encoding, len(TEXT)) == TEXT
    assert inflate(compress(b""), encoding, 0) == b""
    with pytest.raises(TooLarge):
        inflate(compress(TEXT), encoding, len(TEXT) - 1)


def test_no_more_is_inflated_than_may_be() -> None:
    bomb = zlib.compress(bytes(100 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            inflate(bomb, "deflate", 1 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


_CUT = zlib.compress(TEXT)[:-1]


@pytest.mark.parametrize(
    "body", [b"", b"x", gzip.compress(TEXT), _CUT], ids=["empty", "short", "gzip", "cut"]
)
def test_what_is_not_that_format_is_refused(body: bytes) -> None:
    with pytest.raises(NotInflatable):
        inflate(body, "deflate", 1 << 20)


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(NotInflatable, match="3 bytes follow its end"):
        inflate(gzip.compress(TEXT) + b"abc", "gzip", 1 << 20)
