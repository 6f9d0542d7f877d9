"""Versions over HTTP: who answers, and that the answer says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.registry.release import Release, write_release
from tests.telemetry.test_metrics import samples
from tests.test_api import assert_problem

SAMPLE = {"age": 30, "income": 20_000, "visits": 1}
Make = Callable[..., Flask]


@pytest.fixture(params=["true", "false"], ids=["fast path", "Flask"])
def make(request: pytest.FixtureRequest, versions: Path, make_app: Make) -> Make:
    """Make applications on the three versions, whose predictions go either way."""

    def begin(release: Release, **settings: str) -> Flask:
        write_release(versions, release)
        return make_app(MODEL__PATH=str(versions), SERVER__FAST_PATH=request.param, **settings)

    return begin


def predict(client: FlaskClient, path: str = "/predict", **headers: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = client.post(path, json={"features": SAMPLE}, headers=named)
    assert response.status_code == 200, response.get_data(as_text=True)
    return response.get_json()


def metrics(client: FlaskClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return samples(client.get("/metrics").get_data(as_text=True))


def test_a_pinned_version_answers_if_it_is_loaded(make: Make) -> None:
    client = make(Release("1", "2", "canary", 0.0)).test_client()
    assert predict(client)["model_version"] == "1"
    pinned = predict(client, X_Model_Version="2")
    assert pinned["model_version"] == "2"
    assert pinned["probabilities"] != predict(client)["probabilities"]
    body = {"samples": [SAMPLE] * 2}
    batch = client.post("/predict/batch", json=body, headers={"X-Model-Version": "2"})
    assert batch.get_json()["model_version"] == "2"
    for path, sent in (("/predict", {"features": SAMPLE}), ("/predict/batch", body)):
        response = client.post(path, json=sent, headers={"X-Model-Version": "3"})
        document = assert_problem(response, 404)
        assert document["detail"] == ("Version '3' of example is not loaded; loaded: 1, 2.")
    info = client.get("/model/info", headers={"X-Model-Version": "2"}).get_json()
    assert info["model_version"] == "2"
    assert_problem(client.get("/model/info", headers={"X-Model-Version": "9"}), 404)


def test_a_caller_stays_on_one_side_of_a_canary(make: Make) -> None:
    client = make(Release("1", "2", "canary", 0.5)).test_client()
    sides = [
        {predict(client, X_Routing_Key=f"caller {n}")["model_version"] for _ in range(5)}
        for n in range(40)
    ]
    assert all(len(side) == 1 for side in sides)
    assert {version for side in sides for version in side} == {"1", "2"}


def test_without_a_key_each_request_falls_to_a_side_by_its_id(make: Make) -> None:
    client = make(Release("1", "2", "canary", 0.5)).test_client()
    assert {predict(client)["model_version"] for _ in range(60)} == {"1", "2"}
    same = {predict(client, X_Request_ID="r-1")["model_version"] for _ in range(10)}
    assert len(same) == 1


def test_the_header_that_tells_callers_apart_is_a_setting(make: Make) -> None:
    app = make(Release("1", "2", "canary", 0.5), RELEASE__ROUTING_HEADER="X-Customer")
    client = app.test_client()
    sides = {
        n: {predict(client, X_Customer=f"caller {n}")["model_version"] for _ in range(5)}
        for n in range(20)
    }
    assert all(len(side) == 1 for side in sides.values())


def test_a_shadow_answers_nobody_and_is_compared(make: Make) -> None:
    app = make(Release("1", "2", "shadow"))
    client = app.test_client()
    for _ in range(5):
        assert predict(client)["model_version"] == "1"
    client.post("/predict/batch", json={"samples": [SAMPLE] * 7})
    predict(client, X_Model_Version="2")  # asked for: answered by it, and not compared
    parts = app.extensions["lantern"]
    assert parts.shadow.wait(60)
    got = metrics(client)
    labels = (("candidate", "2"), ("model", "example"), ("stable", "1"))

    def rows(result: str) -> float:
        key = tuple(sorted([*labels, ("result", result)]))
        return got.get(("lantern_shadow_rows_total", key), 0)

    assert rows("agreed") + rows("differed") == 12
    assert rows("dropped") == rows("failed") == 0
    one, other = (
        client.post("/predict", json={"features": SAMPLE}, headers={"X-Model-Version": v})
        .get_json()["probabilities"]
        .values()
        for v in ("1", "2")
    )
    mean = sum(abs(a - b) for a, b in zip(one, other, strict=True)) / 3
    assert got[("lantern_shadow_difference_total", labels)] == pytest.approx(12 * mean, rel=1e-4)
    for version in ("1", "2"):
        key = (("model", "example"), ("version", version))
        assert got[("lantern_prediction_duration_seconds_count", key)] >= 1


def test_more_than_a_shadow_keeps_up_with_is_dropped_and_counted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.inference.sample.MAX_BYTES", 10)
    app = make(Release("1", "2", "shadow"))
    client = app.test_client()
    client.post("/predict/batch", json={"samples": [SAMPLE] * 11})
    assert app.extensions["lantern"].shadow.wait(60)
    labels = (("candidate", "2"), ("model", "example"), ("result", "dropped"), ("stable", "1"))
    assert metrics(client)[("lantern_shadow_rows_total", labels)] == 11


def test_the_info_tells_the_release_and_why_it_is_not_followed(make: Make, versions: Path) -> None:
    app = make(Release("1", "2", "canary", 0.25))
    client = app.test_client()
    assert client.get("/model/info").get_json()["release"] == {
        "stable": "1", "candidate": "2", "mode": "canary", "traffic": 0.25, "fault": None,
    }  # fmt: skip
    shutil.rmtree(versions / "3")
    write_release(versions, Release("3"))
    service = app.extensions["lantern"].default_service
    service.refresh()
    told = client.get("/model/info").get_json()
    assert told["model_version"] == "1"
    assert told["release"]["stable"] == "1"
    assert "has no version '3'" in told["release"]["fault"]
    assert metrics(client)[("lantern_release_rejected", (("model", "example"),))] == 1
    write_release(versions, Release("2"))
    service.refresh()
    assert client.get("/model/info").get_json()["release"]["fault"] is None
    got = metrics(client)
    assert got[("lantern_release_rejected", (("model", "example"),))] == 0
    roles = {
        (dict(key[1])["version"], dict(key[1])["role"]): value
        for key, value in got.items()
        if key[0] == "lantern_model_info"
    }
    assert roles == {("1", "stable"): 0, ("2", "candidate"): 0, ("2", "stable"): 1}


def test_a_candidate_that_is_promoted_keeps_what_it_remembers(make: Make, versions: Path) -> None:
    app = make(Release("1", "2", "canary", 1.0), CACHE__SIZE="5")
    client = app.test_client()
    predict(client)
    predict(client, X_Model_Version="1")
    write_release(versions, Release("2"))
    app.extensions["lantern"].default_service.refresh()
    got = metrics(client)
    rows = [got["lantern_cache_rows", (("model", "example"), ("version", v))] for v in ("1", "2")]
    assert rows == [0, 1]


# Several models


@pytest.fixture
def both(versions: Path, make_app: Make) -> Iterator[FlaskClient]:
    """A service of two models; the names of variables come in the order of the alphabet."""
    write_release(versions, Release("2"))
    app = make_app(MODELS__A_SHOP=str(versions), MODELS__CAMPAIGN="models/campaign-response")
    return app.test_client()


def test_each_model_answers_under_its_name_and_the_first_without(
    both: FlaskClient, sample: dict[str, float]
) -> None:
    assert predict(both)["model_version"] == "2"
    assert predict(both, "/models/a_shop/predict")["model_version"] == "2"
    for path, body in (
        ("/models/campaign/predict", {"features": sample}),
        ("/models/campaign/predict/batch", {"samples": [sample] * 2}),
    ):
        response = both.post(path, json=body)
        assert response.status_code == 200
        assert response.get_json()["model_version"] == "1"
        assert_problem(both.post(path.replace("campaign", "a_shop"), json=body), 400)
    info = both.get("/models/campaign").get_json()
    assert info["name"] == "campaign"
    assert both.get("/model/info").get_json()["name"] == "a_shop"
    listed = both.get("/models").get_json()["models"]
    assert [(each["name"], each["release"]["stable"]) for each in listed] == [
        ("a_shop", "2"), ("campaign", "1"),
    ]  # fmt: skip


@pytest.mark.parametrize("call", ["/predict", "/predict/batch", ""])
def test_a_name_that_no_model_has_is_told_those_that_there_are(
    both: FlaskClient, call: str
) -> None:
    path = f"/models/churn{call}"
    response = both.post(path, json={}) if call else both.get(path)
    document = assert_problem(response, 404)
    assert (
        document["detail"] == "Request for unknown model 'churn'; the models are: a_shop, campaign."
    )


def test_the_documentation_has_the_features_of_each(both: FlaskClient) -> None:
    document = both.get("/openapi.json").get_json()
    schemas = document["components"]["schemas"]
    assert schemas["Features"]["required"] == list(SAMPLE)
    assert "tenure_days" in schemas["Features-campaign"]["required"]
    operation = document["paths"]["/models/{name}/predict"]["post"]
    assert operation["parameters"][0]["schema"]["enum"] == ["a_shop", "campaign"]


def test_a_service_is_ready_when_all_its_models_are(versions: Path, make_app: Make) -> None:
    app = make_app(MODELS__A=str(versions), MODELS__B="/nowhere")
    client = app.test_client()
    assert predict(client)["model_version"] == "3"
    assert (
        "There is no model at /nowhere"
        in assert_problem(client.get("/health/ready"), 503)["detail"]
    )
    health = client.get("/health")
    assert health.status_code == 503
    assert health.get_json()["model_loaded"] is True
    assert "/nowhere" in health.get_json()["reason"]
    assert_problem(client.post("/models/b/predict", json={"features": SAMPLE}), 503)
    listed = client.get("/models").get_json()["models"][1]["release"]
    assert listed["stable"] is None
    assert "/nowhere" in listed["fault"]
