"""Metrics of one process, and the folding of the files of workers that are gone."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from app.telemetry.metrics import DIRECTORY_VARIABLE, empty, worker_exited


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


def write(directory: Path, kind: str, pid: int, values: dict[str, float]) -> None:
    """Write a worker's file as prometheus-client does."""
    file = MmapedDict(str(directory / f"{kind}_{pid}.db"))
    for name, value in values.items():
        file.write_value(mmap_key("m_total", name, [], [], "help"), value, 0.0)
    file.close()


def total(directory: Path, name: str) -> float:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))
    return registry.get_sample_value(name)


def test_what_a_departed_worker_counted_stays_and_its_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    for pid in range(101, 111):
        write(tmp_path, "counter", pid, {"m_total": pid})
        (tmp_path / f"gauge_liveall_{pid}.db").write_bytes(b"\0" * 64)
    for pid in range(101, 110):
        worker_exited(pid)
        assert total(tmp_path, "m_total") == sum(range(101, 111))
    left = {path.name for path in tmp_path.glob("*.db")}
    assert left == {"counter_departed.db", "counter_110.db", "gauge_liveall_110.db"}


def test_a_file_that_a_worker_is_just_making_is_no_obstacle(
    make_app: Callable[..., Flask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "counter", 101, {"m_total": 5})
    (tmp_path / "counter_102.db").touch()
    (tmp_path / "counter_103.db").write_bytes(b"cut short")
    app = make_app()
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    assert samples(app.test_client().get("/metrics").text) == {("m_total", ()): 5.0}


def test_metrics_that_can_not_be_written_fail_no_request(
    make_app: Callable[..., Flask], sample: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_app().test_client()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("prometheus_client.metrics.Counter.inc", full)
    assert client.post("/predict", json={"features": sample}).status_code == 200


def test_only_files_of_metrics_are_removed_at_the_start(tmp_path: Path) -> None:
    ours = ("counter_1.db", "gauge_liveall_1.db", "histogram_departed.db")
    for name in (*ours, "customers.db", "lock"):
        (tmp_path / name).touch()
    empty(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"customers.db", "lock"}


def test_a_reader_that_hangs_does_not_hold_up_the_master(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    write(tmp_path, "counter", 101, {"m_total": 5})
    (tmp_path / "gauge_livesum_101.db").write_bytes(b"\0" * 64)
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        worker_exited(101)
    assert total(tmp_path, "m_total") == 5
    assert (tmp_path / "counter_101.db").exists()
    assert not (tmp_path / "gauge_livesum_101.db").exists(), "nothing is in flight there any more"


def test_a_worker_that_counted_nothing_leaves_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    worker_exited(12345)
    assert list(tmp_path.glob("*.db")) == []
