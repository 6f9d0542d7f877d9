"""The limits that every step for texts has: they are checked in one place, and said in one way."""

from __future__ import annotations

from .faults import PartRejected


def check_characters(text: str, pair: str | None, most: int) -> None:
    """Raise `PartRejected` for a text that can't be made into tokens in bounded time."""
    characters = len(text) + len(pair or "")
    if characters > most:
        raise PartRejected(
            f"has {characters:,} characters, which exceeds the limit of {most:,} "
            "(limits.max_text_characters)",
            too_large=True,
        )
    try:
        text.encode()
        (pair or "").encode()
    except UnicodeEncodeError:
        raise PartRejected("has half of a surrogate pair, which is no character") from None


def check_tokens(tokens: int, most: int) -> None:
    """Raise `PartRejected` for more tokens than a network takes."""
    if tokens > most:
        raise PartRejected(
            f"has {tokens:,} tokens, and the model takes at most {most:,}", too_large=True
        )
