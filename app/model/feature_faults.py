"""The faults of a sample: sentences on names that are missing, unknown or alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..documents.suggestions import closest, difference
from .errors import Fault, FeatureMismatch, InvalidFeatures

_NAMES_SHOWN = 10
_NAME_LENGTH_SHOWN = 80
_MAX_GUESSES = 10
_MAX_COMPARISONS = 100
"""The most names that are compared to suggest replacements for the unknown names of one input: a
comparison takes longer than a row of a batch."""
_MAX_CATEGORIES_COMPARED = 1_000
"""The same for unknown categories, which are short."""


class Guesses:
    """Suggestions for the unknown names of one input, as many as the limit of comparisons
    allows.
    """

    def __init__(self, lookalikes: Mapping[str, str]) -> None:
        self._lookalikes = lookalikes
        self._guesses = _MAX_GUESSES
        self._comparisons = _MAX_COMPARISONS
        self._categories = _MAX_CATEGORIES_COMPARED

    def hint(self, name: str, missing: Sequence[str]) -> str:
        """Return what to add to the fault of an unknown name; empty without a suggestion."""
        meant = self._lookalikes.get(appearance(name))
        if meant is not None and meant not in missing:
            return f", but was sent together with {meant!r}{difference(name, meant)}"
        if meant is None:
            self._guesses -= 1
            self._comparisons -= len(missing)
            if self._guesses < 0 or self._comparisons < 0:
                return ""
            meant = closest(name, missing)
        if meant is None:
            return ""
        return f"; did you mean {meant!r}{difference(name, meant)}?"

    def category(self, value: str, known: Sequence[str]) -> str:
        """Return what to add to the fault of an unknown category; empty without a suggestion."""
        self._guesses -= 1
        self._categories -= len(known)
        if self._guesses < 0 or self._categories < 0:
            return ""
        meant = closest(value, known)
        if meant is not None:
            return f"; did you mean {meant!r}{difference(value, meant)}?"
        if len(known) <= _NAMES_SHOWN:
            return f": {_listed(known, repr)}"
        return ""


def appearance(name: str) -> str:
    """Return a key that is the same for names that look the same."""
    if name.isascii() or len(name) > 2 * _NAME_LENGTH_SHOWN:
        return name
    composed = unicodedata.normalize("NFKC", name)
    return "".join(c for c in composed if unicodedata.category(c) != "Cf")


def invalid_features(faults: Sequence[Fault]) -> InvalidFeatures:
    """Return the error for ``faults``: a mismatch if a name is missing or unknown."""
    if any(fault.mismatch for fault in faults):
        return FeatureMismatch(describe_mismatch(faults), faults)
    return InvalidFeatures("A feature has an invalid value.", faults)


def describe_mismatch(faults: Iterable[Fault]) -> str:
    """Return a sentence that lists the missing and the extra names, each once.

    Long names are cut, and long lists truncated: the sentence stays short whatever was sent.
    """
    missing: dict[str, None] = {}
    extra: dict[str, None] = {}
    for fault in faults:
        if fault.mismatch:
            names = missing if fault.detail == "is missing" else extra
            names[str(fault.path[-1])] = None
    alike = {appearance(name) for name in missing} & {appearance(name) for name in extra}
    write = ascii if alike else repr  # names that look the same are shown with escapes
    return f"Feature mismatch. Missing: {_listed(missing, write)}, Extra: {_listed(extra, write)}."


def _listed(names: Iterable[str], write: Callable[[object], str]) -> str:
    shown = [
        name if len(name) <= _NAME_LENGTH_SHOWN else name[:_NAME_LENGTH_SHOWN] + "…"
        for name in names
    ]
    more = len(shown) - _NAMES_SHOWN
    if more > 0:
        return write(shown[:_NAMES_SHOWN])[:-1] + f", and {more} more]"
    return write(shown)
