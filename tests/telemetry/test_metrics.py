"""What is counted, in one process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Parse Prometheus's text into values by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_rows_classes_and_ranges_are_counted(
    make_app: Callable[..., Flask], sample: dict[str, float]
) -> None:
    client = make_app().test_client()
    version = client.get("/health").get_json()["model_version"]
    answer = client.post("/predict", json={"features": {**sample, "age": 200}}).get_json()
    client.post("/predict/batch", json={"samples": [sample] * 4})
    client.post("/predict", json={})
    client.get("/made/up")
    client.open("/", method="BREW")
    response = client.get("/metrics")
    assert response.content_type.startswith("text/plain; version=")
    got = samples(response.get_data(as_text=True))

    def requests(method: str, route: str, status: str) -> float:
        labels = (("method", method), ("route", route), ("status", status))
        return got[("lantern_http_requests_total", labels)]

    assert requests("POST", "/predict", "200") == 1
    assert requests("POST", "/predict", "422") == 1
    assert requests("POST", "/predict/batch", "200") == 1
    assert requests("GET", "unmatched", "404") == 1
    assert requests("other", "unmatched", "405") == 1
    labels = (("model", "campaign-response"), ("version", version))
    assert got[("lantern_predicted_rows_total", labels)] == 5
    by_class = {k[1]: v for k, v in got.items() if k[0] == "lantern_predictions_total"}
    assert sum(by_class.values()) == 5
    assert (
        by_class[(("class", answer["label"]), ("model", "campaign-response"), ("version", version))]
        >= 1
    )
    outside = (("feature", "age"), ("model", "campaign-response"), ("version", version))
    assert got[("lantern_features_out_of_range_total", outside)] == 1
    assert got[("lantern_http_request_duration_seconds_count", (("route", "/predict"),))] == 2
    assert got[("lantern_model_load_seconds", labels)] > 0
    info = next(dict(k[1]) for k in got if k[0] == "lantern_model_info")
    assert info == {
        "model": "campaign-response", "version": version, "runtime": "onnx", "device": "cpu",
        "role": "stable",
    }  # fmt: skip


def test_looks_into_the_cache_are_counted_and_its_rows_are_shown(
    make_app: Callable[..., Flask], sample: dict[str, float]
) -> None:
    client = make_app(CACHE__SIZE="2").test_client()
    for age in (30, 30, 40, 50, 50, 30):
        client.post("/predict", json={"features": {**sample, "age": age}})
    got = samples(client.get("/metrics").get_data(as_text=True))

    def lookups(result: str) -> float:
        labels = (("model", "campaign-response"), ("result", result), ("version", "1"))
        return got[("lantern_cache_lookups_total", labels)]

    assert (lookups("hit"), lookups("miss")) == (2, 4)
    assert got[("lantern_cache_rows", (("model", "campaign-response"), ("version", "1")))] == 2


def test_without_a_cache_nothing_is_told_of_one(
    make_app: Callable[..., Flask], sample: dict[str, float]
) -> None:
    client = make_app().test_client()
    client.post("/predict", json={"features": sample})
    assert "lantern_cache_lookups_total{" not in client.get("/metrics").get_data(as_text=True)


def test_rows_of_forward_passes_are_counted_where_requests_may_share_one(
    make_app: Callable[..., Flask], sample: dict[str, float]
) -> None:
    for setting, passes in (("0", None), ("8", 2)):
        client = make_app(MODEL__BATCH_ROWS=setting).test_client()
        version = client.get("/health").get_json()["model_version"]
        client.post("/predict", json={"features": sample})
        client.post("/predict/batch", json={"samples": [sample] * 4})
        got = samples(client.get("/metrics").text)
        labels = (("model", "campaign-response"), ("version", version))
        assert got.get(("lantern_batch_rows_count", labels)) == passes
        assert got.get(("lantern_batch_rows_sum", labels)) == (passes and 5)


def test_metrics_that_can_not_be_written_fail_no_request(
    make_app: Callable[..., Flask], sample: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_app().test_client()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("app.telemetry.registry.CounterSeries.inc", full)
    assert client.post("/predict", json={"features": sample}).status_code == 200
