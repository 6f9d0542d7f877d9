"""The fault of a part of a sample, before it is known whose sample it is."""

from __future__ import annotations


class PartRejected(Exception):
    """An image or a text that can't become tensors; ``detail`` follows its name in a sentence.

    ``too_large`` is True where a smaller one would be taken.
    """

    def __init__(self, detail: str, *, too_large: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.too_large = too_large
