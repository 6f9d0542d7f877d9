"""The comparison of a candidate with the stable version, from the metrics of a running service."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from ..model.errors import ModelError

_TIMEOUT_SECONDS = 10
_MAX_BYTES = 64 << 20

Labels = Mapping[str, str]
Families = Mapping[str, Sequence[Any]]
"""The samples of Prometheus by the names of their families."""


class NothingToCompare(ModelError):
    """There are no metrics, or no candidate in them."""


@dataclass(frozen=True, slots=True)
class VersionCounts:
    """The counts of one version, summed over the workers: rows by class or label, if the task has
    them, and the mean seconds per prediction (None before the first).
    """

    version: str
    rows: int
    classes: dict[str, int]
    mean_seconds: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Stable version and candidate; for a shadow also its rows by result (agreed, differed,
    dropped, failed), and the mean absolute difference of the numbers in their answers (None if no
    row was compared).
    """

    model: str
    stable: VersionCounts
    candidate: VersionCounts
    shadowed: dict[str, int] = field(default_factory=dict)
    mean_difference: float | None = None


def read_metrics(url: str, api_key: str | None = None) -> str:
    """Return the metrics at ``url``, read with ``api_key``. Raises `NothingToCompare`."""
    if not url.startswith(("http://", "https://")):
        raise NothingToCompare(f"{url} is not a URL that begins with http:// or https://.")
    try:
        request = urllib.request.Request(url)  # noqa: S310
        if api_key:
            request.add_unredirected_header("Authorization", f"Bearer {api_key}")
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310
            text: str = response.read(_MAX_BYTES).decode()
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        place = url.rpartition("@")[2]  # what stands before it may be a password
        hint = ""
        if isinstance(reason, ConnectionRefusedError):
            hint = " Is the service running there? --url names another place."
        raise NothingToCompare(f"{place} can't be read: {reason}.{hint}") from error
    return text


def compare(text: str, model: str) -> Comparison:
    """Return the stable version and candidate of ``model`` from ``text``, in Prometheus's format.

    Raises `NothingToCompare` if there is no candidate, or if these are not Lantern's metrics.
    """
    try:
        metrics = _ModelMetrics(_parse(text), model)
        return _compare(metrics, *_find_versions(metrics))
    except (KeyError, ValueError, OverflowError) as error:
        raise NothingToCompare(f"These are not Lantern's metrics: {error!r}") from error


def _parse(text: str) -> Families:
    try:
        return {family.name: family.samples for family in text_string_to_metric_families(text)}
    except ValueError as error:
        raise NothingToCompare(f"These are not metrics in Prometheus's format: {error}") from error


@dataclass(frozen=True, slots=True)
class _ModelMetrics:
    """The samples of one model, among those of ``families``."""

    families: Families
    model: str

    def samples(self, family: str, suffix: str = "") -> list[tuple[Labels, float]]:
        """Return the labels and the value of each sample of a family."""
        return [
            (sample.labels, sample.value)
            for sample in self.families.get(family, ())
            if sample.name == family + suffix and sample.labels.get("model") == self.model
        ]

    def of_version(self, version: str, family: str, suffix: str) -> list[tuple[Labels, float]]:
        """Return those of one version."""
        samples = self.samples(family, suffix)
        return [each for each in samples if each[0]["version"] == version]

    def total(self, version: str, family: str, suffix: str) -> float:
        """Return the sum over the samples of one version."""
        return sum(value for _, value in self.of_version(version, family, suffix))


def _find_versions(metrics: _ModelMetrics) -> tuple[str, str]:
    """Return the stable version and the candidate. Raises `NothingToCompare`."""
    versions = {
        labels["role"]: labels["version"]
        for labels, value in metrics.samples("lantern_model_info")
        if value
    }
    if "stable" not in versions:
        raise NothingToCompare(f"No version of {metrics.model} is being served there.")
    if "candidate" not in versions:
        raise NothingToCompare(
            f"Version {versions['stable']} of {metrics.model} is served alone there: there is no "
            "candidate."
        )
    return versions["stable"], versions["candidate"]


def _compare(metrics: _ModelMetrics, stable: str, candidate: str) -> Comparison:
    def of_both(family: str) -> list[tuple[Labels, float]]:
        return [
            (labels, value)
            for labels, value in metrics.samples(family, "_total")
            if (labels["stable"], labels["candidate"]) == (stable, candidate)
        ]

    shadowed = {labels["result"]: int(value) for labels, value in of_both("lantern_shadow_rows")}
    compared = shadowed.get("agreed", 0) + shadowed.get("differed", 0)
    difference = sum(value for _, value in of_both("lantern_shadow_difference"))
    return Comparison(
        metrics.model,
        _count(metrics, stable),
        _count(metrics, candidate),
        shadowed,
        difference / compared if compared else None,
    )


def _count(metrics: _ModelMetrics, version: str) -> VersionCounts:
    count = metrics.total(version, "lantern_prediction_duration_seconds", "_count")
    seconds = metrics.total(version, "lantern_prediction_duration_seconds", "_sum")
    predictions = metrics.of_version(version, "lantern_predictions", "_total")
    return VersionCounts(
        version,
        int(metrics.total(version, "lantern_predicted_rows", "_total")),
        # Rows of a model without classes are counted under an empty name.
        {labels["class"]: int(value) for labels, value in predictions if labels["class"]},
        seconds / count if count else None,
    )
