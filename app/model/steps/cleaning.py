"""The words of a text as TorchServe's ``text_classifier`` finds them.

What it does was read in TorchServe 0.12, and its order and its oddities are kept: a network knows
the words that it was trained on. Each function takes time in proportion to the text.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

_ENTITY = re.compile("&(?:[a-z0-9]+|#[0-9]{1,6}|#x[0-9a-f]{1,6});")
_TAG_OR_ENTITY = re.compile(f"<[^>\n]*>?|{_ENTITY.pattern}")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CONTRACTIONS: Mapping[str, str] = {
    "ain't": "is not",
    "can't": "cannot",
    "'cause": "because",
    "o'clock": "of the clock",
    "ma'am": "madam",
    "how'd": "how did",
    "let's": "let us",
    "sha'n't": "shall not",
    "shan't": "shall not",
    "won't": "will not",
    "y'all": "you all",
    **{
        f"{word}n't": f"{word} not"
        for word in (
            *("are", "could", "did", "does", "do", "had", "has", "have", "is", "may", "might"),
            *("must", "need", "ought", "should", "was", "were", "would"),
        )
    },
    **{
        f"{word}'ve": f"{word} have"
        for word in (
            *("could", "i", "might", "must", "should", "so", "they", "to", "we", "what", "when"),
            *("where", "who", "why", "will", "would", "you"),
        )
    },
    **{
        f"{word}'d": f"{word} would"
        for word in ("he", "i", "it", "she", "that", "there", "they", "we", "you")
    },
    "where'd": "where did",
    **{
        f"{word}'ll": f"{word} will"
        for word in ("he", "how", "i", "it", "she", "they", "we", "what", "who", "you")
    },
    **{
        f"{word}'s": f"{word} is"
        for word in ("he", "how", "it", "she", "that", "there", "what", "when", "where", "who")
    },
    "so's": "so as",
    "why's": "why is",
    "i'm": "i am",
    **{f"{word}'re": f"{word} are" for word in ("they", "we", "what", "you")},
}
"""The replacements of contractions, also within a word, but for its first character. Longer ones
there, as "can't've", are never found: they begin with one of these."""
_CONTRACTION = re.compile("|".join(_CONTRACTIONS))


def words_of(text: str) -> list[str]:
    """Return the words of ``text``: in lower case, without tags, accents and punctuation."""
    text = expand_contractions(remove_tags(text).lower())
    # There is a tokenizer behind this, "basic_english", which acts on punctuation: none is left.
    return remove_punctuation(remove_accents(text)).lower().split()


def with_ngrams(words: Sequence[str], most: int) -> Iterator[str]:
    """Yield ``words``, then each two neighbours with a space between them, and so on, up to as many
    as ``most`` together.
    """
    yield from words
    for count in range(2, most + 1):
        for neighbours in zip(*(words[first:] for first in range(count)), strict=False):
            yield " ".join(neighbours)


def remove_tags(text: str) -> str:
    """Return ``text`` without tags of HTML that end on their line, and without entities."""
    return _TAG_OR_ENTITY.sub(_without_tag, text)


def _without_tag(found: re.Match[str]) -> str:
    rest = found[0]
    if rest.startswith("<") and not rest.endswith(">"):  # to the end of the line
        return _ENTITY.sub("", rest)
    return ""


def expand_contractions(text: str) -> str:
    """Return ``text`` with "do not" for "don't", and "as not" for "ain't", without apostrophes."""
    if "'" not in text:
        return text
    lower = text.lower()
    if len(lower) != len(text):  # the one letter that becomes two is in no contraction
        lower = text.replace("\u0130", "\u0131").lower()
    parts: list[str] = []
    end = 0
    for found in _CONTRACTION.finditer(lower):
        parts += text[end : found.start() + 1], _CONTRACTIONS[found[0]][1:]
        end = found.end()
    return "".join((*parts, text[end:])).replace("'", "")


def remove_accents(text: str) -> str:
    """Return ``text`` in ASCII: what NFKD leaves of each character."""
    # One by one, which is the same: to sort a long run of marks takes the square of its length.
    return text if text.isascii() else _BEYOND_ASCII.sub(lambda each: _in_ascii(each[0]), text)


@lru_cache(4096)
def _in_ascii(character: str) -> str:
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()


def remove_punctuation(text: str) -> str:
    """Return ``text`` without the punctuation of ASCII."""
    return text.translate(_NO_PUNCTUATION)
