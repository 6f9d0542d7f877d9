"""What a sample may take while it becomes tensors: callers choose it."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_SIDE = 65_535
"""The longest side of an image in pixels: what resizing needs grows with it."""
LARGEST_ROWS = 256 << 20
"""Bytes of the tensors of one request at most: a few bytes of an image or a text become many."""


@dataclass(frozen=True, slots=True)
class SampleLimits:
    """The settings ``limits.max_image_pixels`` and ``limits.max_text_characters``.

    The first is of an image as it is sent, and after it is resized; the second of a text and its
    pair together.
    """

    image_pixels: int = 32_000_000
    text_characters: int = 200_000


DEFAULT_SAMPLE_LIMITS = SampleLimits()
