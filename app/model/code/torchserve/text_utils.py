"""The words of texts as handlers of TorchServe find them (``ts.handler_utils.text_utils``), which
are those of torchtext.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ...steps.cleaning import with_ngrams

_REPLACED = (
    *(("'", " '  "), ('"', ""), (".", " . "), ("<br />", " "), (",", " , "), ("(", " ( ")),
    *((")", " ) "), ("!", " ! "), ("?", " ? "), (";", " "), (":", " ")),
)
"""The replacements of the tokenizer "basic_english", in this order."""


def ngrams_iterator(token_list: Sequence[str], ngrams: int) -> Iterator[str]:
    """Yield the tokens, then each two neighbours of them, and so on up to ``ngrams``."""
    return with_ngrams(token_list, ngrams)


def get_tokenizer(tokenizer: str | None, language: str = "en") -> Callable[[str], list[str]]:
    """Return what splits a text: at spaces, or as "basic_english" does."""
    if tokenizer is None:
        return str.split
    if tokenizer != "basic_english" or language != "en":
        raise ValueError("the tokenizers are None and 'basic_english', for English")
    return _basic_english


def _basic_english(line: str) -> list[str]:
    line = line.lower()
    for old, new in _REPLACED:
        line = line.replace(old, new)
    return line.split()
