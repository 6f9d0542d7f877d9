"""Words: from a text to the ids of its words, and of those that stand beside each other.

Nothing but numpy is needed, and it may be called from several threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import orjson

from ..batching import Padding
from ..errors import BundleError, shown
from ..signature import DTYPES, Array, Tensors, TensorSpec
from .cleaning import with_ngrams, words_of
from .declaration import HIGHEST_ID, NO_WORD, WordsStep
from .faults import PartRejected
from .text_limits import check_characters, check_tokens

LARGEST_VOCABULARY = 256 << 20
"""Bytes of a vocabulary at most: those of millions of pairs of words have a tenth of it."""


class WordsReader:
    """Makes ids of texts as ``step`` says, for the tensor ``spec``, by the vocabulary in ``data``:
    an object of ids by words, in JSON.

    A text has at most ``max_characters``. Raises `BundleError` for another file.
    """

    takes_pair = False

    def __init__(self, step: WordsStep, spec: TensorSpec, data: bytes, max_characters: int) -> None:
        self._step = step
        self._dtype = DTYPES[spec.datatype]
        self._ids = read_vocabulary(step.vocabulary, data)
        self._max_characters = max_characters
        self.max_length = step.max_length
        self.bytes_per_token = self._dtype.itemsize

    @property
    def padding(self) -> Padding:
        """The values that fill up shorter texts."""
        return Padding({self._step.input: NO_WORD})

    def check(self, text: str, pair: str | None) -> None:
        """Raise `PartRejected` for a text that can't be made into ids in bounded time."""
        if pair is not None:
            raise PartRejected("has a pair, and this model takes single texts")
        check_characters(text, pair, self._max_characters)

    def encode(self, texts: Sequence[tuple[str, str | None]]) -> list[Array]:
        """Return the ids of ``texts``, which `check` accepts.

        Raises `PartRejected` if one of them has no words, or one that isn't known.
        """
        return [self._ids_of(text) for text, _ in texts]

    def check_length(self, ids: Array) -> None:
        """Raise `PartRejected` for more ids than the network takes."""
        check_tokens(len(ids), self.max_length)

    def length(self, found: Sequence[Array]) -> int:
        """Return how many ids the rows of ``found`` get."""
        return max(map(len, found), default=0)

    def tensors(self, found: Sequence[Array]) -> Tensors:
        """Return the rows of ids, filled up."""
        rows = np.full((len(found), self.length(found)), NO_WORD, self._dtype)
        for row, ids in zip(rows, found, strict=True):
            row[: len(ids)] = ids
        return {self._step.input: rows}

    def _ids_of(self, text: str) -> Array:
        words = words_of(text)
        if not words:
            raise PartRejected("has no words")
        unknown = self._step.unknown
        ids = []
        for word in with_ngrams(words, self._step.ngrams):
            index = self._ids.get(word, unknown)
            if index is None:
                raise PartRejected(f"has {shown(word)}, which isn't in the model's vocabulary")
            ids.append(index)
        return np.array(ids, self._dtype)


def read_vocabulary(name: str, data: bytes) -> Mapping[str, int]:
    """Return the ids by words in ``data``, that of the file ``name``. Raises `BundleError`."""
    if len(data) > LARGEST_VOCABULARY:
        raise BundleError(
            f"{name} has {len(data):,} bytes, and at most {LARGEST_VOCABULARY:,} are read."
        )
    try:
        ids = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BundleError(f"{name} is not JSON: {error}.") from error
    if not isinstance(ids, dict) or not ids:
        raise BundleError(f"{name} must be an object of ids by words.")
    for word, index in ids.items():
        if type(index) is not int or not 0 <= index <= HIGHEST_ID:
            raise BundleError(
                f"{name}: the id of {shown(word)} must be a number from 0 to {HIGHEST_ID:,}."
            )
    return ids
