"""What is served of one model at a moment: a stable version, and optionally a candidate."""

from __future__ import annotations

from dataclasses import dataclass, field
from zlib import crc32

from ..model.errors import VersionNotLoaded
from ..model.model import Model
from .release import Mode


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Rollout:
    """The loaded versions and how they share the traffic; it is replaced as a whole.

    A request that took a reference uses it to the end, whatever is promoted meanwhile.
    ``takes_long`` is True if one may take long, whichever version answers it.
    """

    stable: Model
    candidate: Model | None = None
    mode: Mode | None = None
    traffic: float = 0.0
    _multiplier: int = field(init=False, repr=False, default=0)
    _bound: float = field(init=False, repr=False, default=0.0)
    takes_long: bool = field(init=False, repr=False, default=False)

    def __post_init__(self) -> None:
        takes_long = any(model.takes_long for model in self.models)
        object.__setattr__(self, "takes_long", takes_long)
        if self.candidate is not None:
            # An odd factor permutes the numbers of 32 bits, each in its own way.
            multiplier = crc32(self.candidate.version.encode()) * 0x9E3779B1 & 0xFFFFFFFF | 1
            object.__setattr__(self, "_multiplier", multiplier)
            object.__setattr__(self, "_bound", self.traffic * 2**32)

    def is_as(self, other: Rollout | None) -> bool:
        """Return True if ``other`` has the same models sharing the traffic in the same way."""
        return other is not None and (self.models, self.mode, self.traffic) == (
            other.models,
            other.mode,
            other.traffic,
        )

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that are loaded, the stable one first."""
        return (self.stable,) if self.candidate is None else (self.stable, self.candidate)

    def choose(self, key: str) -> Model:
        """Return the model that answers a caller: the same for the same ``key``, in every process.

        As a canary, the candidate gets the share ``traffic`` of all keys. Each candidate gets
        different keys, so that it isn't always the same callers who try a new version.
        """
        candidate = self.candidate
        if candidate is None or self.mode != "canary":
            return self.stable
        # No cryptographic digest, and nothing computed twice: this runs for each request.
        spread = crc32(key.encode()) * self._multiplier & 0xFFFFFFFF
        return candidate if spread < self._bound else self.stable

    def pinned(self, version: str) -> Model:
        """Return the model that a caller asks for by its version.

        Raises `VersionNotLoaded`.
        """
        for model in self.models:
            if model.version == version:
                return model
        raise VersionNotLoaded(
            f"Version {version[:64]!r} of {self.stable.name} is not loaded; loaded: "
            f"{', '.join(model.version for model in self.models)}."
        )
