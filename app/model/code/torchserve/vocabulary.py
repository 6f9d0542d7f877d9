"""The vocabulary of TorchServe's handlers of texts: a file that torch saved, of torchtext's classes
or a dictionary. It is read without torchtext, and no program in the file runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import BundleError, first_line, shown
from ...steps.declaration import HIGHEST_ID

FILE_NAME = "source_vocab.pt"
"""The name of the file, unless the archive's manifest has another."""
_LARGEST = 256 << 20
"""Bytes of a file at most that is read; what it becomes is some times larger."""
_MOST_WORDS = 10_000_000
_UNKNOWN = "<unk>"
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class Vocabulary(Mapping[str, int]):
    """Words and pairs of words with their ids, as handlers use torchtext's class of that name.

    ``unknown`` is the id of every other word; None where there is none, and looking it up raises
    `KeyError`.
    """

    def __init__(self, ids: Mapping[str, int], unknown: int | None = None) -> None:
        self.ids = ids
        self.unknown = unknown

    def __getitem__(self, token: str) -> int:
        found = self.ids.get(token, self.unknown)
        if found is None:
            raise KeyError(token)
        return found

    def __contains__(self, token: object) -> bool:
        return token in self.ids

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __call__(self, tokens: Sequence[str]) -> list[int]:
        return self.lookup_indices(tokens)

    def lookup_indices(self, tokens: Sequence[str]) -> list[int]:
        return [self[token] for token in tokens]

    def lookup_token(self, index: int) -> str:
        return self.get_itos()[index]

    def lookup_tokens(self, indices: Sequence[int]) -> list[str]:
        tokens = self.get_itos()
        return [tokens[index] for index in indices]

    def get_default_index(self) -> int | None:
        return self.unknown

    def get_stoi(self) -> dict[str, int]:
        return dict(self.ids)

    def get_itos(self) -> list[str]:
        return sorted(self.ids, key=self.ids.__getitem__)


class _Inner:
    """Stands for the inner object of torchtext's class, and keeps its state."""

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Outer(_Inner):
    """Stands for torchtext's class itself."""


_CLASSES = (
    (_Outer, "torchtext.vocab.vocab.Vocab"),
    (_Outer, "torchtext.vocab.Vocab"),
    (_Outer, "torchtext.legacy.vocab.Vocab"),
    (_Inner, "torchtext._torchtext.Vocab"),
)
"""By their names in torchtext 0.4 to 0.18."""


def read_vocabulary(path: Path) -> Vocabulary:
    """Return the vocabulary in ``path``. Raises `BundleError`."""
    import torch

    size = path.stat().st_size
    if size > _LARGEST:
        raise BundleError(f"{path} has {size:,} bytes, which exceeds the limit of {_LARGEST:,}.")
    try:
        with torch.serialization.safe_globals([*_CLASSES]):
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises various exceptions for what it can't read
        raise BundleError(
            f"{path} is no vocabulary of torchtext, nor a dictionary of ids by words that "
            f"torch.save wrote: {_why(error)}."
        ) from error
    ids, unknown = _ids_in(saved, path)
    _check(ids, path)
    if unknown is not None:
        _check_id("another word", unknown, path)
    return Vocabulary(ids, unknown)


def _why(error: Exception) -> str:
    """Return what torch says of a file, without its advice to run what is in it."""
    lines = str(error).splitlines() or [type(error).__name__]
    said = next((line for line in lines if "Unsupported" in line or "GLOBAL" in line), None)
    said = lines[0] if said is None else said.rpartition("error: ")[2].partition(". Please")[0]
    return first_line(ValueError(said.strip()))


def _ids_in(saved: object, path: Path) -> tuple[dict[Any, Any], Any]:
    """Return the ids by words, and that of other words, in what a file has."""
    if isinstance(saved, dict):
        return saved, None
    state = getattr(saved, "state", None)
    if isinstance(state, dict):
        if isinstance(ids := state.get("stoi"), dict):
            return ids, ids.get(_UNKNOWN)
        match getattr(state.get("vocab"), "state", None):
            case (str(), [*defaults], [*tokens], [*_]) if all(isinstance(t, str) for t in tokens):
                ids = {token: index for index, token in enumerate(tokens)}
                return ids, defaults[0] if defaults else None
    raise BundleError(f"{path} has a {type(saved).__name__}, and no vocabulary of words.")


def _check(ids: Mapping[Any, Any], path: Path) -> None:
    """Raise `BundleError` unless ``ids`` are numbers by words."""
    if not 0 < len(ids) <= _MOST_WORDS:
        raise BundleError(f"{path} has {len(ids):,} words: from 1 to {_MOST_WORDS:,} are taken.")
    for word, index in ids.items():
        if not _is_text(word):
            raise BundleError(f"{path} has a word that is no text: {shown(word)}.")
        _check_id(word, index, path)


def _is_text(word: object) -> bool:
    return isinstance(word, str) and (word.isascii() or not _SURROGATE.search(word))


def _check_id(word: str, index: object, path: Path) -> None:
    if type(index) is not int or not 0 <= index <= HIGHEST_ID:
        raise BundleError(
            f"{path}: the id of {shown(word)} must be from 0 to {HIGHEST_ID:,}, and is "
            f"{shown(index)}."
        )
