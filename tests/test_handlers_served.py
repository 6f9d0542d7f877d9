"""A service whose model has a handler: its pages, and what other routes say."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient

from app.model.code.request import HandlerRequest
from tests import task_models
from tests.handler_bundles import answer, with_handler
from tests.model.code.test_handler import AROUND, FILES, json_request


@pytest.fixture(params=["alone", "around"])
def kind(request: pytest.FixtureRequest) -> str:
    """Whether the handler is all there is, or is around a network."""
    return str(request.param)


@pytest.fixture
def handled(kind: str, tmp_path: Path, make_app: Callable[..., Flask]) -> FlaskClient:
    path = tmp_path / "m" / "1"
    if kind == "alone":
        with_handler(path, classes=("no", "yes"))
    else:
        requests = [json_request([3, 80])]
        with_handler(task_models.regression(path), AROUND, files=FILES, requests=requests)
    name = {} if kind == "alone" else {"MODEL__NAME": "m"}
    app = make_app(MODEL__PATH=str(path.parent), MODEL__ALLOW_CODE="m", **name)
    return app.test_client()


@pytest.mark.parametrize(
    "path",
    ["/", "/docs/", "/openapi.json", "/model/info", "/models/m", "/health", "/health/ready",
     "/metrics", "/v2/models/m", "/v2/models/m/ready", "/v2/models/m/stats"],
)  # fmt: skip
def test_its_pages_are_served(path: str, handled: FlaskClient) -> None:
    answer = handled.get(path, follow_redirects=True)
    assert answer.status_code == 200, answer.text


def test_tensors_for_a_model_without_any_are_refused(
    tmp_path: Path, make_app: Callable[..., Flask]
) -> None:
    with_handler(tmp_path / "m" / "1")
    client = make_app(MODEL__PATH=str(tmp_path / "m"), MODEL__ALLOW_CODE="true").test_client()
    bodies: list[dict[str, Any]] = [{"inputs": []}, {"inputs": [], "outputs": [{"name": "x"}]}, {}]
    for body in bodies:
        answer = client.post("/v2/models/m/infer", json=body)
        assert answer.status_code == 400, answer.text


def test_an_answer_that_is_not_finite_is_told_of_the_whole_body(
    tmp_path: Path, make_app: Callable[..., Flask]
) -> None:
    """No member of it is known to be at fault: only the handler knows what it means."""
    source = "class Handler:\n    def predict(self, request): return float(request.body)\n"
    with_handler(tmp_path / "m" / "1", source, requests=[HandlerRequest(b"1")])
    client = make_app(MODEL__PATH=str(tmp_path / "m"), MODEL__ALLOW_CODE="true").test_client()
    assert client.post("/predict", data=b"2").get_json() == 2
    refused = client.post("/predict", data=b"nan")
    assert refused.status_code == 422, refused.text
    assert [each["pointer"] for each in refused.get_json()["errors"]] == [""]
    batch = client.post("/predict/batch", json={"samples": ["1", "nan"]})
    assert [each["pointer"] for each in batch.get_json()["errors"]] == ["/samples/1"]
    form = {"data": [(io.BytesIO(value), "a") for value in (b"1", b"nan")]}
    batch = client.post("/predict/batch", data=form)
    assert [each["pointer"] for each in batch.get_json()["errors"]] == ["/1"]


def test_without_leave_nothing_is_served_and_health_says_why(
    tmp_path: Path, make_app: Callable[..., Flask]
) -> None:
    with_handler(tmp_path / "m" / "1")
    client = make_app(MODEL__PATH=str(tmp_path / "m")).test_client()
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert "model.allow_code doesn't allow it" in client.get("/model/info").text


def test_errors_of_a_handler_are_for_callers_and_its_faults_for_the_log(
    tmp_path: Path, make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]
) -> None:
    source = """
class Handler:
    def load(self, bundle):
        self.error = bundle.error
    def predict(self, request):
        status = int(request.body)
        if status == 0:
            raise ValueError("a secret of the owner")
        if status != 200:
            raise self.error("too dark", status)
"""
    with_handler(tmp_path / "m" / "1", source, requests=[HandlerRequest(b"200")])
    app = make_app(MODEL__PATH=str(tmp_path / "m"), MODEL__ALLOW_CODE="m")
    model = app.extensions["lantern"].default_service.current()

    @app.post("/ask")
    def ask() -> bytes:
        return answer(model, HandlerRequest(request.get_data())).body

    client = app.test_client()
    for status in (400, 422, 503, 513):
        found = client.post("/ask", data=str(status))
        assert (found.status_code, found.get_json()["detail"]) == (status, "too dark")
    failed = client.post("/ask", data="0")
    document = failed.get_json()
    assert failed.status_code == 500
    assert document["type"] == "urn:lantern:problem:handler-failed"
    assert "secret" not in failed.text
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (logged,) = [each for each in lines if each["message"] == "the handler of a model failed"]
    assert logged["request_id"] == document["request_id"]
    assert 'raise ValueError("a secret of the owner")' in logged["exc_info"]
    assert logged["reason"].startswith("predict raised ValueError in handler.py, line 8")
