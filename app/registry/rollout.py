"""What serves of one model at one moment: a stable version, and maybe a candidate beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from zlib import crc32

from ..model.errors import VersionNotLoaded
from ..model.model import Model
from .release import Mode


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Rollout:
    """The versions that are loaded and how they share the work; it is replaced as a whole.

    Whoever took one reference is served by it from start to end, whatever is promoted meanwhile.
    """

    stable: Model
    candidate: Model | None = None
    mode: Mode | None = None
    traffic: float = 0.0
    _multiplier: int = field(init=False, repr=False, default=0)
    _bound: float = field(init=False, repr=False, default=0.0)

    def __post_init__(self) -> None:
        if self.candidate is not None:
            # An odd factor permutes the numbers of 32 bits, each in its own way.
            multiplier = crc32(self.candidate.version.encode()) * 0x9E3779B1 & 0xFFFFFFFF | 1
            object.__setattr__(self, "_multiplier", multiplier)
            object.__setattr__(self, "_bound", self.traffic * 2**32)

    def is_as(self, other: Rollout | None) -> bool:
        """Return whether ``other`` has the same models sharing the work in the same way."""
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
        """Return the model that answers a caller: for the same ``key`` the same, in every process.

        As a canary, the candidate gets ``traffic`` of all keys. Which keys differs from candidate
        to candidate, so that it isn't always the same callers who try what is new.
        """
        candidate = self.candidate
        if candidate is None or self.mode != "canary":
            return self.stable
        # No cryptographic digest, and nothing computed twice: each request is chosen for.
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
