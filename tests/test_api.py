"""The contract: each call, each refusal, and any JSON at all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import ServiceUnavailable, TooManyRequests
from werkzeug.test import TestResponse

from app.access.header_names import FEATURE_WARNINGS
from app.model.golden import Golden
from app.model.signature import FEATURES, PROBABILITIES
from app.protocols.native.schemas import FaultSchema, ProblemSchema
from app.telemetry import predictions
from tests.model.test_network import overflowing_checkpoint

Post = Callable[..., TestResponse]


def assert_problem(response: TestResponse, status: int) -> dict[str, Any]:
    """Assert that ``response`` is a problem document of ``status``, and give it."""
    assert response.status_code == status, response.get_data(as_text=True)
    assert response.content_type == "application/problem+json"
    document = response.get_json()
    assert set(document) == set(ProblemSchema().fields)
    assert document["status"] == status
    assert document["request_id"] == response.headers["X-Request-ID"]
    assert len(document["errors"]) <= 100
    for error in document["errors"]:
        assert set(error) == set(FaultSchema().fields)
        assert error["pointer"] == "" or error["pointer"].startswith("/")
    return document


def pointers(response: TestResponse) -> list[str]:
    return [error["pointer"] for error in response.get_json()["errors"]]


# What is answered


def test_a_prediction_holds_class_label_probabilities_version_and_time(
    post: Post, sample: dict[str, float], manifest: dict[str, Any]
) -> None:
    response = post("/predict", {"features": sample})
    assert response.status_code == 200
    assert response.content_type == "application/json"
    answer = response.get_json()
    assert list(answer) == ["prediction", "label", "probabilities", "model_version", "timestamp"]
    probabilities = list(answer["probabilities"].values())
    assert list(answer["probabilities"]) == [f"class_{i}" for i in range(len(probabilities))]
    assert sum(probabilities) == pytest.approx(1, abs=1e-6)
    assert probabilities[answer["prediction"]] == max(probabilities)
    assert answer["label"] == manifest["classes"][answer["prediction"]]
    assert answer["model_version"] == manifest["version"]
    assert datetime.fromisoformat(answer["timestamp"]).utcoffset().total_seconds() == 0


def test_the_golden_samples_get_their_golden_answers_over_http(
    post: Post, manifest: dict[str, Any], golden: Golden
) -> None:
    names = [feature["name"] for feature in manifest["features"]]
    nullable = {feature["name"] for feature in manifest["features"] if feature["nullable"]}
    rows = np.where(np.isnan(golden.inputs[FEATURES]), None, golden.inputs[FEATURES]).tolist()
    probabilities = golden.outputs[PROBABILITIES].tolist()
    samples = [dict(zip(names, row, strict=True)) for row in rows]
    for sample, expected in zip(samples, probabilities, strict=True):
        assert all(value is not None or name in nullable for name, value in sample.items())
        answer = post("/predict", {"features": sample}).get_json()
        assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
    answers = post("/predict/batch", {"samples": samples}).get_json()["predictions"]
    for answer, expected in zip(answers, probabilities, strict=True):
        assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=1e-5)


def test_a_batch_answers_as_the_single_call_does_and_in_order(
    post: Post, sample: dict[str, float]
) -> None:
    samples = [{**sample, "age": age} for age in (20, 50, 90)]
    answer = post("/predict/batch", {"samples": samples}).get_json()
    assert list(answer) == ["predictions", "total_samples", "model_version"]
    assert answer["total_samples"] == 3
    for one, got in zip(samples, answer["predictions"], strict=True):
        alone = post("/predict", {"features": one}).get_json()
        assert list(got) == list(alone)
        assert got["label"] == alone["label"]
        assert got["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-6)


def test_an_empty_batch_has_no_predictions(post: Post) -> None:
    answer = post("/predict/batch", {"samples": []}).get_json()
    assert answer["predictions"] == []
    assert answer["total_samples"] == 0


def test_the_index_links_to_every_resource(client: FlaskClient) -> None:
    answer = client.get("/").get_json()
    assert answer["docs"] == "/docs"
    assert {"message", "version"} <= set(answer)
    for name in ("docs", "openapi", "health", "model", "metrics"):
        assert client.get(answer[name]).status_code == 200
    assert client.get("/").headers["Vary"] == "Accept"


def test_a_healthy_service_says_so(client: FlaskClient, manifest: dict[str, Any]) -> None:
    health = client.get("/health")
    assert health.status_code == 200
    document = health.get_json()
    assert document["status"] == "healthy"
    assert document["model_loaded"] is True
    assert document["model_version"] == manifest["version"]
    assert datetime.fromisoformat(document["timestamp"]).tzinfo is not None
    assert client.get("/health/live").get_json() == {"status": "live"}
    assert client.get("/health/ready").get_json() == {"status": "ready"}


def test_the_model_describes_itself(client: FlaskClient, manifest: dict[str, Any]) -> None:
    info = client.get("/model/info").get_json()
    assert info["feature_names"] == [feature["name"] for feature in manifest["features"]]
    assert info["num_features"] == len(manifest["features"])
    for described, feature in zip(info["features"], manifest["features"], strict=True):
        assert described | feature == described
        assert (described["kind"], described["categories"]) == ("number", [])
    assert info["outputs"][0]["role"] == "probabilities"
    assert info["classes"] == manifest["classes"]
    assert info["training"] == manifest["training"]
    assert info["model_loaded"] is True
    assert info["checksum"] == "sha256:" + manifest["files"]["model.onnx"]["sha256"]
    assert info["runtime"] == "onnx"
    assert info["device"] == "cpu"
    assert datetime.fromisoformat(info["loaded_at"]).tzinfo is not None


def test_the_old_address_of_the_documentation_leads_to_the_new_one(client: FlaskClient) -> None:
    for path in ("/apidocs/", "/docs/"):
        response = client.get(path)
        assert response.status_code == 302
        assert response.headers["Location"] == "/docs"


def test_head_answers_as_get_without_a_body(client: FlaskClient) -> None:
    response = client.head("/health")
    assert response.status_code == 200
    assert response.data == b""


# What is accepted


def test_null_is_imputed_where_the_manifest_allows_it_and_refused_elsewhere(
    post: Post, sample: dict[str, float], manifest: dict[str, Any]
) -> None:
    assert {feature["nullable"] for feature in manifest["features"]} == {True, False}
    for feature in manifest["features"]:
        response = post("/predict", {"features": {**sample, feature["name"]: None}})
        if feature["nullable"]:
            assert response.status_code == 200
        else:
            assert_problem(response, 422)
            assert pointers(response) == [f"/features/{feature['name']}"]


def test_an_absent_feature_is_an_error_even_where_null_is_accepted(
    post: Post, sample: dict[str, float], manifest: dict[str, Any]
) -> None:
    nullable = next(f["name"] for f in manifest["features"] if f["nullable"])
    del sample[nullable]
    assert_problem(post("/predict", {"features": sample}), 400)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/ld+json",
    ],
)
def test_json_may_be_declared_in_any_of_its_names(
    post: Post, sample: dict[str, float], content_type: str
) -> None:
    assert post("/predict", {"features": sample}, content_type).status_code == 200


def test_of_a_key_that_stands_twice_the_last_wins(post: Post, sample: dict[str, float]) -> None:
    body = json.dumps({"features": sample}).replace('{"age":', '{"age": "x", "age":').encode()
    assert post("/predict", body).status_code == 200


def test_a_number_is_what_is_finite_as_float32(post: Post, sample: dict[str, float]) -> None:
    def status(number: str) -> int:
        features = json.dumps({"features": {**sample, "age": "?"}}).replace('"?"', number)
        return post("/predict", features.encode()).status_code

    for number in ("3.4e38", "-3.4e38", "1e-400", "-0.0", "12345678901234567890123", "1E2"):
        assert status(number) == 200, number
    for number in ("3.5e38", "-1e39", "1e999", "-1e999", "9" * 5000, "true", '"35"', "[1]"):
        assert status(number) == 422, number[:20]
    for number in ("NaN", "Infinity", "-Infinity", "+1", "01", ".5", "0x1F"):
        assert status(number) == 400, number


def test_a_value_outside_the_range_of_training_is_served_and_told(
    post: Post, sample: dict[str, float]
) -> None:
    assert FEATURE_WARNINGS not in post("/predict", {"features": sample}).headers
    far = {**sample, "age": 150, "tenure_days": -5}
    response = post("/predict", {"features": far})
    assert response.status_code == 200
    assert response.headers[FEATURE_WARNINGS] == "age, tenure_days"
    batch = post("/predict/batch", {"samples": [sample, far, sample]})
    assert batch.headers[FEATURE_WARNINGS] == "age, tenure_days"


def test_the_header_of_warnings_stays_short_however_many_there_are() -> None:
    names = [f"a name, {i}" for i in range(500)]
    header = predictions.listed(names)
    assert len(header) < 1100
    first, *_, last = header.split(", ")
    assert unquote(first) == names[0]
    shown = header.count(", ")
    assert last == f"and {500 - shown} more"


def test_a_sane_request_id_is_kept_and_any_other_replaced(client: FlaskClient) -> None:
    kept = client.get("/health", headers={"X-Request-ID": "order-17/a:b"})
    assert kept.headers["X-Request-ID"] == "order-17/a:b"
    for strange in ("", "a b", "x" * 129, 'a"b', "é"):
        replaced = client.get("/health", headers={"X-Request-ID": strange})
        assert len(replaced.headers["X-Request-ID"]) == 32
        assert replaced.headers["X-Request-ID"] != strange


# What is refused: the rows of the table


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"features": NaN}',
        b"[" * 100_000,
        b'{"features": {"age": 1e999, "\\ud800": 1}}',
        b'{"features": {"age": 1e999}, "\\udfff": 1}',
        b'{"a": 1e999, "b": ' + b"[" * 100_000,
    ],
)
def test_400_for_a_body_that_is_not_json(post: Post, body: bytes) -> None:
    document = assert_problem(post("/predict", body), 400)
    assert document["detail"].startswith("The body is not JSON: ")


def test_400_for_features_that_are_not_exactly_the_models(
    post: Post, sample: dict[str, float]
) -> None:
    sample["agee"] = sample.pop("age")
    response = post("/predict", {"features": sample})
    document = assert_problem(response, 400)
    assert document["detail"] == "Feature mismatch. Missing: ['age'], Extra: ['agee']."
    assert pointers(response) == ["/features/age", "/features/agee"]
    batch = post("/predict/batch", {"samples": [sample]})
    assert_problem(batch, 400)
    assert pointers(batch) == ["/samples/0/age", "/samples/0/agee"]


def test_404_for_an_unknown_path(client: FlaskClient) -> None:
    document = assert_problem(client.get("/nope"), 404)
    assert document["instance"] == "/nope"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predict", {"POST", "OPTIONS"}),
        ("DELETE", "/predict/batch", {"POST", "OPTIONS"}),
        ("POST", "/health", {"GET", "HEAD", "OPTIONS"}),
        ("BREW", "/", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_405_for_a_wrong_method_with_those_that_are_allowed(
    client: FlaskClient, method: str, path: str, allowed: set[str]
) -> None:
    response = client.open(path, method=method)
    assert_problem(response, 405)
    assert set(response.headers["Allow"].split(", ")) == allowed


def test_400_for_an_upgrade_says_that_there_are_no_websockets(client: FlaskClient) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
    document = assert_problem(client.get("/health", headers=headers), 400)
    assert "WebSockets are not supported" in document["detail"]


def test_413_for_a_body_over_the_limit(make_app: Callable[..., Flask]) -> None:
    client = make_app(LIMITS__MAX_BODY_BYTES="100").test_client()
    response = client.post("/predict", data=b" " * 101, content_type="application/json")
    assert "100 bytes" in assert_problem(response, 413)["detail"]
    within = client.post("/predict", data=b" " * 100, content_type="application/json")
    assert within.status_code == 400


def test_413_for_a_batch_over_the_limit(
    make_app: Callable[..., Flask], sample: dict[str, float]
) -> None:
    client = make_app(LIMITS__MAX_BATCH_SIZE="2").test_client()
    assert client.post("/predict/batch", json={"samples": [sample] * 2}).status_code == 200
    response = client.post("/predict/batch", json={"samples": [sample] * 3})
    assert_problem(response, 413)
    assert pointers(response) == ["/samples"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_415_for_what_is_not_declared_as_json(
    post: Post, sample: dict[str, float], content_type: str
) -> None:
    assert_problem(post("/predict", {"features": sample}, content_type), 415)


def test_415_for_a_compressed_body(client: FlaskClient) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    response = client.post("/predict", data=b"\x1f\x8b", headers=headers)
    assert "gzip" in assert_problem(response, 415)["detail"]


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/predict", [], ""),
        ("/predict", None, ""),
        ("/predict", {}, "/features"),
        ("/predict", {"features": None}, "/features"),
        ("/predict", {"features": [1, 2]}, "/features"),
        ("/predict/batch", {"samples": {}}, "/samples"),
        ("/predict/batch", {"samples": None}, "/samples"),
        ("/predict/batch", {"samples": [3]}, "/samples/0"),
    ],
)
def test_422_for_json_of_the_wrong_shape(post: Post, path: str, body: Any, where: str) -> None:
    response = post(path, body)
    assert_problem(response, 422)
    assert pointers(response) == [where]


def test_422_for_a_member_that_is_not_known(post: Post, sample: dict[str, float]) -> None:
    response = post("/predict", {"features": sample, "a/b~c": 1})
    assert_problem(response, 422)
    assert pointers(response) == ["/a~1b~0c"]


def test_422_for_a_value_that_is_not_a_finite_number(post: Post, sample: dict[str, float]) -> None:
    response = post("/predict", {"features": {**sample, "age": "35"}})
    document = assert_problem(response, 422)
    assert document["detail"] == "/features/age must be a number, not a string."


def test_422_for_values_on_which_the_model_overflows(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    """A network without preprocessing, trained elsewhere, knows no bounds."""
    torch.save(overflowing_checkpoint(), tmp_path / "model.pt")
    app = make_app(MODEL__PATH=str(tmp_path), MODEL__FEATURE_NAMES="a,b,c,d")
    fine = dict.fromkeys("abcd", 1)
    extreme = dict.fromkeys("abcd", 3.4e38)
    client = app.test_client()
    one = client.post("/predict", json={"features": extreme})
    assert "is not finite" in assert_problem(one, 422)["detail"]
    assert pointers(one) == ["/features"]
    many = client.post("/predict/batch", json={"samples": [fine, extreme, fine, extreme]})
    assert_problem(many, 422)
    assert pointers(many) == ["/samples/1", "/samples/3"]
    assert client.get("/openapi.json").status_code == 200


def test_a_batch_names_every_fault_with_its_row(post: Post, sample: dict[str, float]) -> None:
    short = {name: value for name, value in sample.items() if name != "income"}
    samples = [sample, {**sample, "age": True}, sample, short, 7]
    response = post("/predict/batch", {"samples": samples})
    assert_problem(response, 400)
    assert pointers(response) == ["/samples/1/age", "/samples/3/income", "/samples/4"]


def test_of_more_than_a_hundred_faults_a_hundred_are_told(post: Post) -> None:
    response = post("/predict/batch", {"samples": [{}] * 500})
    assert len(assert_problem(response, 400)["errors"]) == 100


@pytest.mark.parametrize("refusal", [TooManyRequests, ServiceUnavailable])
def test_429_and_503_for_too_much_at_once_say_when_to_come_back(
    make_app: Callable[..., Flask], refusal: type[TooManyRequests | ServiceUnavailable]
) -> None:
    """Whatever limits the load, an extension or a view, refuses by raising werkzeug's own."""
    app = make_app()

    @app.get("/busy")
    def busy() -> str:
        raise refusal(retry_after=3)

    response = app.test_client().get("/busy")
    assert_problem(response, refusal.code)
    assert response.headers["Retry-After"] == "3"


def test_500_shows_nothing_of_the_fault_and_logs_all_of_it(
    make_app: Callable[..., Flask], log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    app = make_app()

    @app.get("/broken")
    def broken() -> str:
        raise ZeroDivisionError("a secret detail")

    response = app.test_client().get("/broken")
    document = assert_problem(response, 500)
    assert "secret" not in response.get_data(as_text=True)
    (line,) = [line for line in log_lines() if line["level"] == "ERROR"]
    assert "a secret detail" in line["exc_info"]
    assert line["request_id"] == document["request_id"]


def test_503_everywhere_the_model_is_needed_when_there_is_none(
    make_app: Callable[..., Flask],
) -> None:
    client = make_app(MODEL__PATH="/nowhere").test_client()
    for response in (
        client.post("/predict", json={}),
        client.post("/predict/batch", json={}),
        client.get("/model/info"),
        client.get("/health/ready"),
    ):
        assert "There is no model at /nowhere." in assert_problem(response, 503)["detail"]
    health = client.get("/health")
    assert health.status_code == 503
    document = health.get_json()
    assert document["status"] == "unhealthy"
    assert document["model_loaded"] is False
    assert document["model_version"] is None
    assert "There is no model at" in document["reason"]
    for path in ("/", "/health/live", "/docs", "/openapi.json", "/metrics"):
        assert client.get(path).status_code == 200, path


def test_503_from_readiness_when_the_worker_is_about_to_stop(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app()
    app.extensions["lantern"].draining = lambda: True
    client = app.test_client()
    response = client.get("/health/ready")
    assert "shutting down" in assert_problem(response, 503)["detail"]
    assert response.headers["Retry-After"] == "1"
    assert client.get("/health").status_code == 200


# Any JSON at all

numbers = st.integers() | st.floats(allow_nan=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
names = ["age", "income", "tenure_days", "num_purchases", "avg_transaction_value"]
near_features = st.dictionaries(
    st.sampled_from([*names, "days_since_last_purchase", "agee"]), numbers | json_values
)
complete_features = st.fixed_dictionaries(
    dict.fromkeys([*names, "days_since_last_purchase"], numbers)
)
bodies = (
    json_values
    | st.fixed_dictionaries({"features": json_values | near_features | complete_features})
    | st.fixed_dictionaries({"samples": json_values | st.lists(near_features | complete_features)})
)


def to_json(value: Any) -> bytes:
    """Write JSON, infinities as numbers beyond float64 (which JSON can hold)."""
    text = json.dumps(value)
    return text.replace("-Infinity", "-1e999").replace("Infinity", "1e999").encode()


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies)
def test_any_json_gets_an_answer_or_a_problem_and_never_a_500(
    app: Flask, path: str, body: Any
) -> None:
    response = app.test_client().post(path, data=to_json(body), content_type="application/json")
    if response.status_code == 200:
        answers = response.get_json()
        for answer in answers.get("predictions", [answers]):
            probabilities = answer["probabilities"].values()
            assert all(math.isfinite(p) and 0 <= p <= 1 for p in probabilities)
    else:
        assert response.status_code in (400, 413, 422)
        assert_problem(response, response.status_code)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200), content_type=st.text(max_size=40))
def test_any_bytes_get_a_problem_and_never_a_500(
    app: Flask, body: bytes, content_type: str
) -> None:
    headers = {"Content-Type": content_type.encode("ascii", "ignore").decode()}
    headers = {k: "".join(c for c in v if c.isprintable()) for k, v in headers.items()}
    response = app.test_client().post("/predict", data=body, headers=headers)
    assert_problem(response, response.status_code)
    assert response.status_code in (400, 415, 422)
