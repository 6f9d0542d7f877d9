"""The comparison of a candidate with the stable version, by a running service's metrics."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from ..model.errors import ModelError

_TIMEOUT_SECONDS = 10
_MAX_BYTES = 64 << 20

Labels = Mapping[str, str]


class NothingToCompare(ModelError):
    """There are no metrics, or no candidate in them."""


@dataclass(frozen=True, slots=True)
class VersionCounts:
    """What one version did, summed over the workers: rows by class, and the mean of the seconds
    that one prediction took (None before the first).
    """

    version: str
    rows: int
    classes: dict[str, int]
    mean_seconds: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Stable version and candidate; of a shadow also its rows by result (agreed, differed, dropped,
    failed), and the mean absolute difference of probabilities (None without a compared row).
    """

    model: str
    stable: VersionCounts
    candidate: VersionCounts
    shadowed: dict[str, int] = field(default_factory=dict)
    mean_difference: float | None = None


def read_metrics(url: str, api_key: str | None = None) -> str:
    """Return Prometheus's text from ``url``, read with ``api_key``. Raises `NothingToCompare`."""
    if not url.startswith(("http://", "https://")):
        raise NothingToCompare(f"{url} is not an address that begins with http:// or https://.")
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
    """Return stable version and candidate of ``model`` from Prometheus's ``text``.

    Raises `NothingToCompare` when there is no candidate, or these are other metrics.
    """
    try:
        return _compare(text, model)
    except (KeyError, ValueError, OverflowError) as error:
        raise NothingToCompare(f"These are no metrics of this service: {error!r}") from error


def _compare(text: str, model: str) -> Comparison:
    try:
        families = {family.name: family.samples for family in text_string_to_metric_families(text)}
    except ValueError as error:
        raise NothingToCompare(f"These are no metrics of Prometheus: {error}") from error

    def samples(family: str, suffix: str = "") -> list[tuple[Labels, float]]:
        return [
            (sample.labels, sample.value)
            for sample in families.get(family, [])
            if sample.name == family + suffix and sample.labels.get("model") == model
        ]

    roles = {
        labels["role"]: labels["version"]
        for labels, value in samples("lantern_model_info")
        if value
    }
    if "stable" not in roles:
        raise NothingToCompare(f"No version of {model} serves there.")
    if "candidate" not in roles:
        raise NothingToCompare(
            f"Version {roles['stable']} of {model} serves there alone: there is no candidate."
        )

    def side(version: str) -> VersionCounts:
        def total(family: str, suffix: str) -> float:
            return sum(v for labels, v in samples(family, suffix) if labels["version"] == version)

        count = total("lantern_prediction_duration_seconds", "_count")
        seconds = total("lantern_prediction_duration_seconds", "_sum")
        return VersionCounts(
            version,
            int(total("lantern_predicted_rows", "_total")),
            {
                labels["class"]: int(value)
                for labels, value in samples("lantern_predictions", "_total")
                if labels["version"] == version
            },
            seconds / count if count else None,
        )

    def of_both(labels: Labels) -> bool:
        return (labels["stable"], labels["candidate"]) == (roles["stable"], roles["candidate"])

    shadowed = {
        labels["result"]: int(value)
        for labels, value in samples("lantern_shadow_rows", "_total")
        if of_both(labels)
    }
    compared = shadowed.get("agreed", 0) + shadowed.get("differed", 0)
    difference = sum(
        value for labels, value in samples("lantern_shadow_difference", "_total") if of_both(labels)
    )
    return Comparison(
        model,
        side(roles["stable"]),
        side(roles["candidate"]),
        shadowed,
        difference / compared if compared else None,
    )
