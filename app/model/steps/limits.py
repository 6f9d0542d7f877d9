"""The limits of what a sample takes while it becomes tensors: callers choose it."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_SIDE = 65_535
"""The longest side of an image in pixels: what resizing needs grows with it."""
LARGEST_ROWS = 256 << 20
"""Bytes of the tensors of one request at most: a few bytes of an image or a text become many."""
BYTES_OF_TOKEN = 3 << 10
"""The bytes that a token counts as where rows are too many to run at once: not its own few, but
those of its embedding (768 float32, as of BERT), of which a network holds several."""
IMAGES_OF_REQUEST = 4
"""The number of the largest images that one request may have, or more of smaller ones: a file of
some kilobytes can become as many pixels as the largest photo."""

IMAGES_AT_ONCE = 2
"""How many of the largest images the threads of a worker decode at once, or more of smaller ones:
the largest takes a core for half a second and more, so that more would only take memory."""
PIXELS_OF_BLOCK = 256
"""How many pixels take as long to decode as one block of a file (of a PNG, JPEG or GIF) does to
read: an image has as many blocks at most as `SampleLimits.image_pixels` allows for that, or
`LEAST_BLOCKS`; a good one has some dozens, or one for each 8 KiB."""
LEAST_BLOCKS = 1_000


@dataclass(frozen=True, slots=True)
class SampleLimits:
    """The settings ``limits.max_image_pixels`` and ``limits.max_text_characters``.

    The first is of an image as it is sent, and after it is resized, and several of one request have
    at most ``IMAGES_OF_REQUEST`` times as many; the second is of a text and its pair together.
    """

    image_pixels: int = 32_000_000
    text_characters: int = 200_000


DEFAULT_SAMPLE_LIMITS = SampleLimits()
