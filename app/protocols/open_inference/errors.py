"""The error for an invalid request of the protocol."""

from __future__ import annotations

from collections.abc import Sequence

from ...model.errors import Fault

Path = tuple[str | int, ...]


class InvalidRequest(ValueError):
    """A request that can't be served; ``faults`` say what is wrong, and where in its JSON.

    ``sentence`` says it for all of them, where the first fault doesn't.
    """

    def __init__(self, faults: Sequence[Fault], sentence: str = "") -> None:
        super().__init__(sentence or faults[0].detail)
        self.faults = tuple(faults)
        self.sentence = sentence

    @classmethod
    def at(cls, path: Path, detail: str) -> InvalidRequest:
        """Return the error for one fault, ``detail``, at the place that ``path`` leads to."""
        return cls([Fault(path, detail)])
