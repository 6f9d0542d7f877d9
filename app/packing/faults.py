"""Faults of what an owner says of a model: all that don't follow from each other, told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ParamSpec, TypeVar

from ..model.errors import BundleError

P = ParamSpec("P")
T = TypeVar("T")
_MOST = 10
"""The most faults that are told at once: there may be one for each of many features."""


class SeveralFaults(BundleError):
    """Two faults or more; the message numbers them."""

    def __init__(self, faults: Sequence[str]) -> None:
        count = len(faults)
        said = [f"({index} of {count}) {fault}" for index, fault in enumerate(faults, 1)]
        super().__init__(" ".join(said))
        self.faults = tuple(faults)


class Faults:
    """Collects faults, so that one run names all that can be known."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def add(self, fault: str) -> None:
        """Keep a fault for `check`, one of `_MOST`."""
        if fault not in self._found and len(self._found) < _MOST:
            self._found.append(fault)

    def attempt(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Return what ``act`` returns; None if it raises a `BundleError`, which is kept, or is not
        tried because there are faults enough.
        """
        if len(self._found) >= _MOST:
            return None
        try:
            return act(*args, **kwargs)
        except SeveralFaults as error:
            for fault in error.faults:
                self.add(fault)
        except BundleError as error:
            self.add(str(error))
        return None

    def check(self) -> None:
        """Raise `BundleError` with all faults that were kept, if there are any."""
        if len(self._found) == 1:
            raise BundleError(self._found[0])
        if self._found:
            raise SeveralFaults(self._found)
