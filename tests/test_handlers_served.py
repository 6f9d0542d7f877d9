"""A service whose model has a handler: its pages, and what other routes say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests import task_models
from tests.handler_bundles import with_handler
from tests.model.code.test_handler import AROUND, FILES, json_request


@pytest.fixture(params=["alone", "around"])
def handled(
    request: pytest.FixtureRequest, tmp_path: Path, make_app: Callable[..., Flask]
) -> FlaskClient:
    path = tmp_path / "m" / "1"
    if request.param == "alone":
        with_handler(path, classes=("no", "yes"))
    else:
        requests = [json_request([3, 80])]
        with_handler(task_models.regression(path), AROUND, files=FILES, requests=requests)
    name = {} if request.param == "alone" else {"MODEL__NAME": "m"}
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


def test_without_leave_nothing_is_served_and_health_says_why(
    tmp_path: Path, make_app: Callable[..., Flask]
) -> None:
    with_handler(tmp_path / "m" / "1")
    client = make_app(MODEL__PATH=str(tmp_path / "m")).test_client()
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert "model.allow_code doesn't allow it" in client.get("/model/info").text
