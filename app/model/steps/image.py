"""Images: from the bytes of a file to the values of a tensor, equal to torchvision's transforms.

Nothing of the file is believed: its size is read from its header and limited before it is decoded,
and whatever Pillow raises is a fault of the image. This module imports Pillow.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO

import numpy as np
from PIL import (  # noqa: F401 - registers the formats, and no others
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from ..errors import first_line
from ..signature import DTYPES, Array, TensorSpec
from .checks import image_shape, image_size
from .declaration import ImageStep, Size
from .faults import PartRejected
from .image_file import ImageFile, orientation, prepare
from .limits import IMAGES_AT_ONCE, LARGEST_SIDE, LEAST_BLOCKS, PIXELS_OF_BLOCK
from .pixel_budget import PixelBudget

# It warns of what is wrong with a file, which the caller is told; nobody else can do anything.
warnings.filterwarnings("ignore", module=r"PIL\.")

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
"""No others: some of Pillow's run programs, or have never been hardened."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The turns that make an image upright, by the orientation in its EXIF."""
_LONGEST_REASON = 120
_decoded = PixelBudget()
"""Of this process, whatever models it has."""
_EXACT = np.dtype(np.float32)
"""The type that values are computed in; half of it would lose digits on the way."""


class ImageReader:
    """Reads images as ``step`` says, for the tensor ``spec``; thread-safe.

    An image has at most ``max_pixels``, as it is sent and after it is resized.
    """

    def __init__(self, step: ImageStep, spec: TensorSpec, max_pixels: int) -> None:
        self.name = spec.name
        self.dtype = DTYPES[spec.datatype]
        self.shape = image_shape(step, spec)
        self._height, self._width = image_size(step, spec)
        self._step = step
        self._filter = Image.Resampling[step.filter.upper()]
        self._max_pixels = max_pixels
        self._max_blocks = max(LEAST_BLOCKS, max_pixels // PIXELS_OF_BLOCK)
        self._offset, self._factor = self._normalisation()

    def read(self, data: bytes, out: Array) -> None:
        """Write the values of the image in ``data`` into ``out``, an array of `shape`.

        Raises `PartRejected`.
        """
        pixels = self._pixels(data).reshape(self._height, self._width, self._step.channels)
        if self._step.layout == "NCHW":
            pixels = pixels.transpose(2, 0, 1)
        pixels = pixels.reshape(self.shape)  # one channel may have no dimension
        if self._offset is None and self._factor is None:
            out[...] = pixels
            return
        values = out if self.dtype == _EXACT else np.empty(self.shape, _EXACT)
        values[...] = pixels
        if self._offset is not None:
            np.subtract(values, self._offset, out=values)
        if self._factor is not None:
            np.multiply(values, self._factor, out=values)
        if values is not out:
            out[...] = values

    def count_pixels(self, data: bytes) -> int:
        """Return how many pixels `read` would make: those of the image, and of it resized.

        A block of the file counts as `PIXELS_OF_BLOCK`. Only the header is read. It is 0 for what
        is no image.
        """
        with suppress(PartRejected), _decoding():
            file = prepare(data, self._max_blocks)
            width, height = _open(file).size
            resized = self._size_resized(width, height) if min(width, height) else Size(0, 0)
            return width * height + resized.width * resized.height + file.blocks * PIXELS_OF_BLOCK
        return 0

    def _normalisation(self) -> tuple[Array | None, Array | None]:
        """Return what to subtract from a value of 0 to 255, and the factor of the difference; None
        where there is nothing to do.

        The mean is subtracted before anything is scaled: that loses fewer digits than adding it to
        a larger product.
        """
        step = self._step
        shape = (-1,) if step.layout == "NHWC" or len(self.shape) == 2 else (-1, 1, 1)
        offset = factor = None
        if any(step.mean):
            offset = (np.array(step.mean) / step.scale).astype(_EXACT).reshape(shape)
        if step.scale != 1 or any(value != 1 for value in step.std):
            factor = (step.scale / np.array(step.std or (1.0,))).astype(_EXACT).reshape(shape)
        return offset, factor

    def _pixels(self, data: bytes) -> Array:
        """Return the values 0 to 255 of an image in its final size: (height, width), and channels
        where it has several.
        """
        with _decoding():
            file = prepare(data, self._max_blocks)
            image = _open(file)
            width, height = image.size
            self._check_size(width, height)
            with _decoded.take(width * height, self._max_pixels * IMAGES_AT_ONCE):
                image.load()
                self._check_size(*image.size)  # a frame of a GIF may be larger than it says
                image = _upright(image, file.exif)
                if image.mode != self._step.mode:
                    image = image.convert(self._step.mode)
                image = self._cropped(self._resized(image))
                return np.asarray(image)

    def _check_size(self, width: int, height: int, called: str = "is") -> None:
        """Raise `PartRejected` for an image that is too large, or has no pixels."""
        if min(width, height) < 1:
            raise PartRejected("has no pixels")
        if max(width, height) > LARGEST_SIDE:
            raise PartRejected(
                f"{called} {width:,} x {height:,} pixels, and the limit of a side is "
                f"{LARGEST_SIDE:,}",
                too_large=True,
            )
        if width * height > self._max_pixels:
            raise PartRejected(
                f"{called} {width:,} x {height:,} pixels, which exceeds the limit of "
                f"{self._max_pixels:,} pixels (limits.max_image_pixels)",
                too_large=True,
            )

    def _resized(self, image: Image.Image) -> Image.Image:
        size = self._size_resized(*image.size)
        if (size.width, size.height) == image.size:
            return image
        self._check_size(size.width, size.height, "resized is")
        return image.resize((size.width, size.height), self._filter)

    def _size_resized(self, width: int, height: int) -> Size:
        """Return the size of an image once it is resized, if it is."""
        resize = self._step.resize
        if resize is None:
            return Size(width, height)
        return resize.exact or with_shorter_side(width, height, resize.shorter or 1)

    def _cropped(self, image: Image.Image) -> Image.Image:
        """Return the centre of ``image``, black around it where it is smaller."""
        size = (self._width, self._height)
        if image.size == size:
            return image
        if self._step.crop is None:
            width, height = image.size
            raise PartRejected(
                f"is {width:,} x {height:,} pixels once it is read, and the model takes "
                f"{self._width:,} x {self._height:,}"
            )
        rounding = self._step.crop_rounding
        left, top = (margin(*sides, rounding) for sides in zip(image.size, size, strict=True))
        return image.crop((left, top, left + self._width, top + self._height))


def _open(file: ImageFile) -> Image.Image:
    """Return the image in ``file``, of which only the header is read yet."""
    return Image.open(BytesIO(file.data), formats=_FORMATS)


def with_shorter_side(width: int, height: int, shorter: int) -> Size:
    """Return the size with the same proportions, rounded as torchvision's ``Resize`` does."""
    longer = int(shorter * max(width, height) / min(width, height))
    return Size(shorter, longer) if width <= height else Size(longer, shorter)


def margin(size: int, wanted: int, rounding: str) -> int:
    """Return where the middle ``wanted`` pixels begin: by ``rounding`` "even" as torchvision's
    ``CenterCrop`` has it; negative for a smaller image, before which as many are missing.
    """
    if wanted > size:
        return -((wanted - size) // 2)
    return (size - wanted) // 2 if rounding == "down" else round((size - wanted) / 2)


def _upright(image: Image.Image, exif: bytes) -> Image.Image:
    """Return ``image`` as its EXIF says that it is held; one that can't be read says nothing."""
    turn = _UPRIGHT.get(orientation(exif or image.info.get("exif", b"")) or 0)
    return image if turn is None else image.transpose(turn)


@contextmanager
def _decoding() -> Iterator[None]:
    """Turn what Pillow raises for a file into `PartRejected`; but not that there is no memory."""
    try:
        yield
    except (PartRejected, MemoryError):
        raise
    except UnidentifiedImageError:
        raise PartRejected(f"is no image of these formats: {', '.join(_FORMATS)}") from None
    except Image.DecompressionBombError:
        raise PartRejected(
            "has more pixels than any that is decoded (limits.max_image_pixels)", too_large=True
        ) from None
    except Exception as error:
        reason = first_line(error)[:_LONGEST_REASON]
        raise PartRejected(f"can't be decoded: {reason}") from error
