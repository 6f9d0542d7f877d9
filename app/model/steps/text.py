"""Texts: from a string, or a pair of them, to the tokens that a network takes.

The tokens are those of the library tokenizers, which transformers uses, too. This module imports
it; it may be called from several threads, and releases the interpreter's lock meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

# Threads are the worker's to start, not the library's, which warns of forks otherwise. It reads
# this each time that it is called.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Tokenizer

from ..batching import Padding
from ..errors import BundleError, first_line
from ..signature import DTYPES, Tensors, TensorSpec
from .declaration import TextStep
from .faults import PartRejected
from .text_limits import check_characters, check_tokens

LARGEST_TOKENIZER = 64 << 20
"""Bytes of a tokenizer.json at most; those of the largest vocabularies have half of it."""
_PANIC = "PanicException"
"""The exception of a library in Rust that met what it thought impossible; it has no public name."""


class TextReader:
    """Makes tokens of texts as ``step`` says, for the tensors ``specs``, by the tokenizer whose
    JSON is ``data``.

    A text has at most ``max_characters``, with its pair. Raises `BundleError` for another file.
    """

    takes_pair = True

    def __init__(
        self, step: TextStep, specs: Sequence[TensorSpec], data: bytes, max_characters: int
    ) -> None:
        self._step = step
        self.max_length = step.max_length
        self._dtypes = {spec.name: DTYPES[spec.datatype] for spec in specs}
        self._max_characters = max_characters
        self._tokenizer = _load(step, data)
        self.bytes_per_token = sum(dtype.itemsize for dtype in self._dtypes.values())

    @property
    def padding(self) -> Padding | None:
        """The values that fill up shorter texts; None where the network sees those."""
        step = self._step
        if step.attention_mask is None:
            return None
        values = dict.fromkeys(step.inputs, 0) | {step.input_ids: step.pad_id}
        return Padding(values, is_before=step.padding_side == "left")

    def check(self, text: str, pair: str | None) -> None:
        """Raise `PartRejected` for a text that can't be made into tokens in bounded time."""
        check_characters(text, pair, self._max_characters)

    def encode(self, texts: Sequence[tuple[str, str | None]]) -> list[Any]:
        """Return the tokens of ``texts``, which `check` accepts, without padding.

        Raises `PartRejected` if one of them can't be made into tokens.
        """
        given = [text if pair is None else (text, pair) for text, pair in texts]
        try:
            return list(self._tokenizer.encode_batch_fast(given))
        except Exception as error:
            raise PartRejected(f"can't be made into tokens: {first_line(error)[:120]}") from error
        except BaseException as error:
            if type(error).__name__ != _PANIC:
                raise
            raise PartRejected("can't be made into tokens by the model's tokenizer") from error

    def check_length(self, encoding: Any) -> None:
        """Raise `PartRejected` for more tokens than the network takes."""
        check_tokens(len(encoding), self.max_length)

    def length(self, encodings: Sequence[Any]) -> int:
        """Return how many tokens the rows of ``encodings`` get."""
        if self._step.padding == "max_length":
            return self._step.max_length
        return max(map(len, encodings), default=0)

    def tensors(self, encodings: Sequence[Any]) -> Tensors:
        """Return the rows of ``encodings``, padded."""
        step, shape = self._step, (len(encodings), self.length(encodings))
        ids = np.full(shape, step.pad_id, self._dtypes[step.input_ids])
        tensors = {step.input_ids: ids}
        for name in (step.attention_mask, step.token_type_ids):
            if name is not None:
                tensors[name] = np.zeros(shape, self._dtypes[name])
        for row, encoding in enumerate(encodings):
            count = len(encoding)
            filled = slice(count) if step.padding_side == "right" else slice(shape[1] - count, None)
            ids[row, filled] = encoding.ids
            if step.attention_mask is not None:
                tensors[step.attention_mask][row, filled] = 1
            if step.token_type_ids is not None:
                tensors[step.token_type_ids][row, filled] = encoding.type_ids
        return tensors


def _load(step: TextStep, data: bytes) -> Tokenizer:
    """Return the tokenizer in ``data``, which truncates as ``step`` says, and doesn't pad."""
    if len(data) > LARGEST_TOKENIZER:
        raise BundleError(
            f"{step.tokenizer} has {len(data):,} bytes, and at most {LARGEST_TOKENIZER:,} are read."
        )
    try:
        tokenizer = Tokenizer.from_buffer(data)
        tokenizer.no_padding()
        if step.truncation:
            tokenizer.enable_truncation(step.max_length, direction=step.truncation_side)
        else:
            tokenizer.no_truncation()
        added = max(tokenizer.num_special_tokens_to_add(is_pair) for is_pair in (False, True))
    except Exception as error:  # the library raises no class of its own
        raise BundleError(
            f"{step.tokenizer} is no tokenizer of the library tokenizers: {first_line(error)}."
        ) from error
    except BaseException as error:
        if type(error).__name__ != _PANIC:
            raise
        raise BundleError(f"{step.tokenizer} makes the library tokenizers fail.") from error
    if added >= step.max_length:
        raise BundleError(
            f"{step.tokenizer} adds {added} tokens to a text or a pair, and max_length "
            f"{step.max_length} leaves no room for it."
        )
    return tokenizer
