"""The versions that workers could serve last, kept in the shared memory of the metrics."""

from __future__ import annotations

from time import monotonic

from .registry import Gauge, Registry


class ServedVersions:
    """The versions that workers could serve, for workers that start while a release is faulty.

    They are kept for as long as the server runs, also when workers end or a new master takes over.
    """

    def __init__(self, registry: Registry) -> None:
        self._served_at = Gauge(
            "lantern_version_served_at",
            "When a worker could last serve a version, by the monotonic clock of the system.",
            ["model", "version"],
            multiprocess_mode="max",
            registry=registry,
            is_exposed=False,
        )

    def remember(self, model: str, version: str) -> None:
        """Record that ``version`` of ``model`` can be served."""
        self._served_at.labels(model, version).set(monotonic())

    def recall(self, model: str) -> str | None:
        """Return the version of ``model`` that was recorded last; None if there is none."""
        times = self._served_at.totals()
        known = {version: at for (name, version), (at,) in times.items() if name == model}
        return max(known, key=known.__getitem__, default=None)
