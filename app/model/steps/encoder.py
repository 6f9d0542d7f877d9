"""The encoder of steps: from samples, as callers send them, to the rows that a network takes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ...version import FOR_IMAGES, FOR_TEXTS
from ..batching import Padding
from ..errors import (
    MAX_FAULTS,
    BundleError,
    Fault,
    ImagesTooLarge,
    InvalidSamples,
    RowsTooLarge,
    SamplesTooLarge,
)
from ..signature import Array, Tensors, TensorSpec, no_rows
from .declaration import (
    IMAGE,
    PAIR,
    TEXT,
    ImageStep,
    Sample,
    Step,
    TextStep,
    WordsStep,
    kind_of,
    members_of,
)
from .faults import PartRejected
from .limits import (
    BYTES_OF_TOKEN,
    DEFAULT_SAMPLE_LIMITS,
    IMAGES_OF_REQUEST,
    LARGEST_ROWS,
    SampleLimits,
)

if TYPE_CHECKING:
    from .image import ImageReader
    from .text import TextReader
    from .words import WordsReader

_LIBRARIES = {"image": "PIL", "text": "tokenizers"}
"""By the kind of a step, the library that its module imports."""


class StepEncoder:
    """Turns samples into rows: an array for each tensor of ``inputs``, which ``steps`` fill.

    ``load`` returns the bytes of a file of the bundle. The libraries are imported here, so that
    only a process that has such a model pays for them. Thread-safe. Raises `BundleError`.
    """

    def __init__(
        self,
        steps: tuple[Step, ...],
        inputs: Sequence[TensorSpec],
        load: Callable[[str], bytes],
        limits: SampleLimits = DEFAULT_SAMPLE_LIMITS,
    ) -> None:
        self.members = members_of(steps)
        self._inputs = tuple(inputs)
        self._image: ImageReader | None = None
        self._text: TextReader | WordsReader | None = None
        self._most_pixels = limits.image_pixels * IMAGES_OF_REQUEST
        specs = {spec.name: spec for spec in inputs}
        for step in steps:
            if isinstance(step, ImageStep):
                self._image = _image_reader(step, specs[step.input], limits)
            elif isinstance(step, WordsStep):
                self._text = _words_reader(step, specs[step.input], load, limits)
            else:
                filled = [specs[name] for name in step.inputs]
                self._text = _text_reader(step, filled, load, limits)

    @property
    def takes_image(self) -> bool:
        """True if a sample has an image."""
        return self._image is not None

    @property
    def takes_text(self) -> bool:
        """True if a sample has a text."""
        return self._text is not None

    @property
    def takes_pair(self) -> bool:
        """True if a text may have a second one that is read together with it."""
        return self._text is not None and self._text.takes_pair

    @property
    def padding(self) -> Padding | None:
        """The values that fill up shorter texts, where the network ignores those; else None."""
        return self._text.padding if self._text is not None else None

    @property
    def bytes_of_row(self) -> int:
        """The most bytes that a row counts as: those of its image, and `BYTES_OF_TOKEN` for each
        token of the longest text.
        """
        found = 0
        if self._image is not None:
            found += prod(self._image.shape) * self._image.dtype.itemsize
        if self._text is not None:
            found += self._text.max_length * BYTES_OF_TOKEN
        return found

    def check_together(self, samples: Sequence[Sample]) -> None:
        """Raise `ImagesTooLarge` if the images of one request are too much to decode, whether they
        are encoded at once or not. None is decoded for that.
        """
        if self._image is None or len(samples) * 2 <= IMAGES_OF_REQUEST:  # each sent, and resized
            return
        pixels = 0
        for sample in samples:
            pixels += self._image.count_pixels(sample.image or b"")
            if pixels > self._most_pixels:  # at once: counting takes time, too
                raise ImagesTooLarge(pixels, self._most_pixels, IMAGES_OF_REQUEST)

    def encode(self, samples: Sequence[Sample]) -> Tensors:
        """Return the rows of ``samples``, in their order; texts are padded to the longest.

        Raises `InvalidSamples` with the faults of all of them (at most ``MAX_FAULTS``): the path of
        each is the index of its sample and "image", "text" or "pair"; `SamplesTooLarge`, which is
        one, where smaller ones would be taken, and `RowsTooLarge` where fewer would.
        """
        if not samples:
            return self.no_rows()
        faults = _Faults()
        self._check_members(samples, faults)
        faults.check()
        tensors: dict[str, Array] = {}
        if self._text is not None:  # first, because it costs less to refuse
            tensors.update(self._tokens(self._text, samples, faults))
        if self._image is not None:
            tensors[self._image.name] = self._images(self._image, samples, faults)
        faults.check()
        return tensors

    def no_rows(self) -> Tensors:
        """Return the rows of no sample."""
        return {spec.name: no_rows(spec) for spec in self._inputs}

    def key(self, row: Tensors) -> Hashable:
        """Return a value that only the same row has, of few bytes: a cache holds many."""
        digest = sha256()
        for spec in self._inputs:
            array = np.ascontiguousarray(row[spec.name])
            digest.update(repr(array.shape).encode())
            digest.update(array.data)
        return digest.digest()

    def _check_members(self, samples: Sequence[Sample], faults: _Faults) -> None:
        for index, sample in enumerate(samples):
            for member in (IMAGE, TEXT):
                is_sent = getattr(sample, member) is not None
                if member in self.members and not is_sent:
                    faults.add(index, member, "is missing")
                elif is_sent and member not in self.members:
                    faults.add(index, member, f"is not taken: this model takes {self._taken}")
            if sample.pair is not None and not self.takes_text:
                faults.add(index, PAIR, f"is not taken: this model takes {self._taken}")
            if faults.are_many:
                return

    @property
    def _taken(self) -> str:
        return " and ".join(f"{member}s" for member in self.members)

    def _images(self, reader: ImageReader, samples: Sequence[Sample], faults: _Faults) -> Array:
        _check_rows(len(samples), prod(reader.shape) * reader.dtype.itemsize)
        rows = np.empty((len(samples), *reader.shape), reader.dtype)
        for index, sample in enumerate(samples):
            with faults.of(index, IMAGE):
                reader.read(sample.image or b"", rows[index])
            if faults.are_many:
                break
        return rows

    def _tokens(
        self, reader: TextReader | WordsReader, samples: Sequence[Sample], faults: _Faults
    ) -> Tensors:
        texts = [(sample.text or "", sample.pair) for sample in samples]
        for index, text in enumerate(texts):
            with faults.of(index, TEXT):
                reader.check(*text)
        faults.check()
        encodings: list[Any] = []
        try:
            encodings = reader.encode(texts)
        except PartRejected:  # which doesn't say of which of them
            for index, text in enumerate(texts):
                with faults.of(index, TEXT):
                    encodings += reader.encode([text])
            faults.check()
        for index, encoding in enumerate(encodings):
            with faults.of(index, TEXT):
                reader.check_length(encoding)
        faults.check()
        _check_rows(len(samples), reader.length(encodings) * reader.bytes_per_token)
        return reader.tensors(encodings)


class _Faults:
    """The faults of samples that were found so far."""

    def __init__(self) -> None:
        self._found: list[Fault] = []
        self._are_of_size = True

    @property
    def are_many(self) -> bool:
        """True if no more of them are reported."""
        return len(self._found) >= MAX_FAULTS

    def add(self, index: int, member: str, detail: str, *, too_large: bool = False) -> None:
        self._are_of_size &= too_large
        if not self.are_many:
            self._found.append(Fault((index, member), detail))

    @contextmanager
    def of(self, index: int, member: str) -> Iterator[None]:
        """Take a `PartRejected` as a fault of ``member`` of the sample at ``index``."""
        try:
            yield
        except PartRejected as error:
            self.add(index, member, error.detail, too_large=error.too_large)

    def check(self) -> None:
        """Raise `InvalidSamples` if there is a fault; `SamplesTooLarge` if all are of size."""
        if self._found:
            raise (SamplesTooLarge if self._are_of_size else InvalidSamples)(self._found)


def _check_rows(rows: int, bytes_of_row: int) -> None:
    """Raise `RowsTooLarge` if the tensors of so many rows would be too large."""
    if rows * bytes_of_row > LARGEST_ROWS and rows > 1:
        raise RowsTooLarge(rows, bytes_of_row, LARGEST_ROWS)


def import_readers(steps: Iterable[Step]) -> None:
    """Import what reads the samples of ``steps``; what is missing, `StepEncoder` says.

    No thread is started, so it is safe before a fork, and then shared.
    """
    for step in steps:
        kind = kind_of(step)
        library = _LIBRARIES.get(kind)
        if library is None or find_spec(library) is not None:
            import_module(f".{kind}", __package__)


def _image_reader(step: ImageStep, spec: TensorSpec, limits: SampleLimits) -> ImageReader:
    _require("PIL", "images", "Pillow", FOR_IMAGES)
    from .image import ImageReader

    return ImageReader(step, spec, limits.image_pixels)


def _text_reader(
    step: TextStep,
    specs: Sequence[TensorSpec],
    load: Callable[[str], bytes],
    limits: SampleLimits,
) -> TextReader:
    _require("tokenizers", "texts", "tokenizers", FOR_TEXTS)
    from .text import TextReader

    return TextReader(step, specs, load(step.tokenizer), limits.text_characters)


def _words_reader(
    step: WordsStep, spec: TensorSpec, load: Callable[[str], bytes], limits: SampleLimits
) -> WordsReader:
    from .words import WordsReader

    return WordsReader(step, spec, load(step.vocabulary), limits.text_characters)


def _require(package: str, taken: str, library: str, extra: str) -> None:
    """Raise `BundleError` if the library that reads what is ``taken`` is missing."""
    if find_spec(package) is None:
        raise BundleError(
            f"This model takes {taken}, and {library} isn't installed: pip install {extra}"
        )
