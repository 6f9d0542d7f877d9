"""The steps of a manifest, and what callers send for them.

A step is data: no code of a bundle runs. Nothing here imports Pillow or tokenizers, so that a
manifest can be read without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

from ..file_name import FileName
from ..signature import TensorName

_Side = Annotated[int, Meta(ge=1, le=16384, description="a number of pixels, from 1 to 16,384")]
_Channels = Annotated[
    tuple[float, ...], Meta(max_length=3, description="an array of a number for each channel")
]
HIGHEST_ID = 2**31 - 1
"""The highest id of a word or a token."""
NO_WORD = -1
"""The value that fills up a row of ids of words."""
Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
"""Pillow's names of its filters, which are those of torchvision for pictures."""

IMAGE, TEXT, PAIR = "image", "text", "pair"
"""The members of a sample, as callers and the samples of packing call them; the first two are the
kinds of the steps that read them, too."""


class Sample(Struct, frozen=True):
    """The part of a request that gets one answer: the bytes of an encoded image, a text, or both; a
    ``pair`` is a second text that is read together with the first.
    """

    image: bytes | None = None
    text: str | None = None
    pair: str | None = None


class Size(Struct, frozen=True, forbid_unknown_fields=True):
    """A size in pixels."""

    width: _Side
    height: _Side


class Resize(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The size that an image gets: ``shorter`` is that of its shorter side, and keeps its
    proportions; ``width`` and ``height`` don't.
    """

    shorter: _Side | None = None
    width: _Side | None = None
    height: _Side | None = None

    @property
    def exact(self) -> Size | None:
        """The size, where it is the same for every image."""
        if self.width is None or self.height is None:
            return None
        return Size(self.width, self.height)


class ImageStep(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag=IMAGE,
    tag_field="kind",
):
    """Turn an encoded image into values of the tensor ``input``.

    The image is upright, has ``mode``, is resized by ``filter`` and cropped to ``crop`` around its
    centre (where it is smaller, what is missing is black), as torchvision's transforms do. A margin
    of half a pixel is rounded by ``crop_rounding``: "even" is torchvision's, "down" that of
    transformers. Each value of 0 to 255 then becomes ``(value * scale - mean) / std`` of its
    channel. The order of the dimensions is ``layout``.
    """

    input: TensorName
    mode: Literal["RGB", "L"] = "RGB"
    resize: Resize | None = None
    filter: Filter = "bilinear"
    crop: Size | None = None
    crop_rounding: Literal["even", "down"] = "even"
    scale: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    mean: _Channels = ()
    std: _Channels = ()
    layout: Literal["NCHW", "NHWC"] = "NCHW"

    @property
    def channels(self) -> int:
        """The number of channels."""
        return 3 if self.mode == "RGB" else 1

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensors that it fills."""
        return (self.input,)

    @property
    def size(self) -> Size | None:
        """The size of every image that it makes; None if that depends on the image."""
        return self.crop or (self.resize.exact if self.resize else None)


class TextStep(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag=TEXT,
    tag_field="kind",
):
    """Turn a text, or a pair of them, into the tensors that the other members name.

    ``tokenizer`` is a file of the bundle, as the library tokenizers writes it. With ``truncation``
    a longer text is cut to ``max_length`` tokens, and refused without. Shorter ones get ``pad_id``
    up to the longest of the batch, or up to ``max_length``.
    """

    tokenizer: FileName
    max_length: Annotated[int, Meta(ge=1, le=65536)]
    input_ids: TensorName
    attention_mask: TensorName | None = None
    token_type_ids: TensorName | None = None
    truncation: bool = True
    padding: Literal["longest", "max_length"] = "longest"
    pad_id: Annotated[int, Meta(ge=0, le=HIGHEST_ID)] = 0
    padding_side: Literal["right", "left"] = "right"
    truncation_side: Literal["right", "left"] = "right"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensors that it fills."""
        return tuple(filter(None, (self.input_ids, self.attention_mask, self.token_type_ids)))


class WordsStep(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag="words",
    tag_field="kind",
):
    """Turn a text into the ids of its words, which ``vocabulary`` has, a file of the bundle: for an
    EmbeddingBag, as TorchServe's ``text_classifier`` does.

    Behind those of the words are those of each two neighbours, and so on up to ``ngrams`` of them.
    What the vocabulary doesn't have is ``unknown``; without that, the text is refused, as it is
    with more ids than ``max_length``. Shorter texts of a batch are filled up with `NO_WORD`.
    """

    vocabulary: FileName
    input: TensorName
    max_length: Annotated[int, Meta(ge=1, le=65536)]
    ngrams: Annotated[int, Meta(ge=1, le=5)] = 1
    unknown: Annotated[int, Meta(ge=0, le=HIGHEST_ID)] | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensors that it fills."""
        return (self.input,)


Step = ImageStep | TextStep | WordsStep


def members_of(steps: tuple[Step, ...]) -> tuple[str, ...]:
    """Return the members of a sample that ``steps`` need: `IMAGE`, `TEXT`."""
    return tuple(member_of(step) for step in steps)


def member_of(step: Step) -> str:
    """Return the member of a sample that a step needs."""
    return IMAGE if isinstance(step, ImageStep) else TEXT


def kind_of(step: Step) -> str:
    """Return the kind of a step, as the manifest calls it."""
    return str(step.__struct_config__.tag)


def files_of(steps: tuple[Step, ...]) -> Iterator[str]:
    """Yield the files of the bundle that ``steps`` read."""
    for step in steps:
        if not isinstance(step, ImageStep):
            yield step.tokenizer if isinstance(step, TextStep) else step.vocabulary
