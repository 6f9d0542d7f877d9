"""The versions that could be served: remembered beside what is counted, in the workers' memory."""

from __future__ import annotations

from time import monotonic

from .registry import Gauge, Registry


class ServedVersions:
    """What workers could serve, for those that begin while a release can't be served.

    It lasts as long as the server: workers may end, and a new master take over.
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
        """Remember that ``version`` of ``model`` can be served."""
        self._served_at.labels(model, version).set(monotonic())

    def recall(self, model: str) -> str | None:
        """Return the version of ``model`` that was remembered last; None where none was."""
        times = self._served_at.totals()
        known = {version: at for (name, version), (at,) in times.items() if name == model}
        return max(known, key=known.__getitem__, default=None)
