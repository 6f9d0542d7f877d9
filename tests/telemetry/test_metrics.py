"""What is counted, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from tests.telemetry.test_slabs import Slow

INFER = "/v2/models/campaign-response/infer"


def inference(sample: dict[str, float]) -> dict[str, Any]:
    """Return the request of the Open Inference Protocol for one sample."""
    tensors = [
        {"name": name, "datatype": "FP64", "shape": [1], "data": [value]}
        for name, value in sample.items()
    ]
    return {"inputs": tensors}


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
    app = make_app()
    client = app.test_client()
    assert client.post("/predict", json={"features": sample}).status_code == 200

    class Full:
        def __getitem__(self, _: int) -> float:
            raise OSError("No space left on device")

    monkeypatch.setattr(app.extensions["lantern"].metrics.registry, "values", Full())
    assert client.post("/predict", json={"features": sample}).status_code == 200
    assert client.post(INFER, json=inference(sample)).status_code == 200


def test_what_several_threads_count_at_once_is_counted(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its turn in the midst of every addition."""
    app = make_app()
    app.test_client().get("/health")  # loads the model
    parts = app.extensions["lantern"]
    metrics, model = parts.metrics, parts.default_service.rollout.stable
    slow = Slow(metrics.registry.values, partial(time.sleep, 0.0001))
    monkeypatch.setattr(metrics.registry, "values", slow)

    for count in (
        lambda: metrics.request_served("POST", "/predict", 200, 0.5),
        lambda: metrics.predicted(model, 1, {model.classes[0]: 1}, {"age": 1}),
        lambda: parts.statistics.succeeded(model, 1, 0.25, 0.5, 0.25),
    ):
        with ThreadPoolExecutor(4) as threads:
            for _ in range(80):
                threads.submit(count)
    got = samples(metrics.exposition().decode())

    def total(name: str, **labels: str) -> float:
        return sum(
            value
            for (found, having), value in got.items()
            if found == name and labels.items() <= dict(having).items()
        )

    route = {"route": "/predict"}
    assert total("lantern_http_requests_total", **route) == 80
    assert total("lantern_http_request_duration_seconds_sum", **route) == 40
    assert total("lantern_http_request_duration_seconds_count", **route) == 80
    assert total("lantern_predicted_rows_total") == 80
    assert total("lantern_predictions_total") == 80
    assert total("lantern_features_out_of_range_total") == 80
    assert total("lantern_inference_requests_total") == 80
    assert total("lantern_inference_rows_total") == 80
    assert total("lantern_inference_seconds_total", part="success") == 80
    assert total("lantern_inference_seconds_total", part="run") == 40


def test_no_series_is_begun_for_what_was_not_counted(make_app: Callable[..., Flask]) -> None:
    client = make_app().test_client()
    client.post("/predict", json={})
    text = client.get("/metrics").text
    assert "lantern_http_requests_total{" in text
    for name in ("lantern_predicted_rows", "lantern_predictions", "lantern_features_out_of_range"):
        assert f"{name}_total{{" not in text
