"""Suggestions: the known name that an unknown one was probably meant to be."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from itertools import takewhile

_LONGEST_NAME = 80
"""Characters of the unknown name that are compared: the cost of a comparison grows with them."""
_CHARACTERS_SHOWN = 4


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the one of ``known`` that is most similar to ``name``; None if none is similar."""
    close = difflib.get_close_matches(name[:_LONGEST_NAME], list(known), n=1)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that suggests the closest of ``known``, or nothing."""
    meant = closest(name, known)
    return "" if meant is None else f"; did you mean {meant!r}{difference(name, meant)}?"


def difference(name: str, meant: str) -> str:
    """Return which characters differ, to be added after ``meant``; empty for ASCII names, whose
    difference is visible.
    """
    if name.isascii() and meant.isascii():
        return ""
    start = _equal_at_start(name, meant)
    end = _equal_at_start(name[start:][::-1], meant[start:][::-1])
    ours, theirs = (_characters(text[start : len(text) - end]) for text in (meant, name))
    if unicodedata.is_normalized("NFC", meant) != unicodedata.is_normalized("NFC", name):
        theirs += ", another Unicode normal form"
    return f" (which has {ours} where this has {theirs})"


def _equal_at_start(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _characters(text: str) -> str:
    shown = " ".join(f"U+{ord(character):04X}" for character in text[:_CHARACTERS_SHOWN])
    return (shown or "nothing") + (" …" if len(text) > _CHARACTERS_SHOWN else "")
