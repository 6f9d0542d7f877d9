"""How long a request may wait, and what one is answered for which there is no time."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.http.fast_path import FastPath
from app.http.overload import WaitBudget
from app.settings import SettingsError, load_settings
from app.worker.contract import OVERDUE

Lines = Callable[[], list[dict[str, Any]]]
OVERDUE_ENVIRON = {OVERDUE: 0.7}


def budget(ms: int = 500) -> WaitBudget:
    return WaitBudget(load_settings({"LANTERN_LIMITS__QUEUE_BUDGET_MS": str(ms)}).limits)


def asking(milliseconds: str, method: str = "POST") -> dict[str, str]:
    return {"REQUEST_METHOD": method, "HTTP_X_REQUEST_TIMEOUT_MS": milliseconds}


def test_a_prediction_may_wait_for_as_long_as_the_settings_say() -> None:
    assert budget()({"REQUEST_METHOD": "POST"}) == 0.5
    assert budget(0)({"REQUEST_METHOD": "POST"}) == inf


def test_a_caller_may_be_in_more_of_a_hurry_and_not_in_less() -> None:
    assert budget()(asking("20")) == 0.02
    assert budget()(asking("0")) == 0
    assert budget()(asking("60000")) == 0.5
    assert budget(0)(asking("60000")) == 60


def test_who_looks_after_the_service_always_has_a_turn() -> None:
    assert budget()({"REQUEST_METHOD": "GET"}) == inf
    assert budget()(asking("1", "GET")) == inf


@pytest.mark.parametrize("short", ["true", "false"])
@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_a_request_that_is_overdue_is_refused_before_any_work(
    short: str, path: str, make_app: Callable[..., Flask], log_lines: Lines
) -> None:
    app = make_app(SERVER__FAST_PATH=short)
    assert isinstance(app.wsgi_app._application, FastPath) is (short == "true")
    answer = app.test_client().post(
        path,
        data=b"this is not even JSON",
        content_type="application/json",
        headers={"X-Request-Id": "one", "X-Request-Timeout-Ms": "300"},
        environ_overrides=OVERDUE_ENVIRON,
    )
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["X-Request-ID"] == "one"
    assert answer.json == {
        "type": "urn:lantern:problem:overloaded",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "Server overloaded: estimated wait 0.7 s exceeds the limit of 0.3 s "
        "(limits.queue_budget_ms, or your X-Request-Timeout-Ms). Retry later.",
        "instance": path,
        "request_id": "one",
        "errors": [],
    }
    (line,) = log_lines()
    assert (line["message"], line["status"], line["path"]) == ("request", 503, path)
    metrics = app.test_client().get("/metrics").text
    assert 'lantern_http_requests_rejected_total{reason="overloaded"} 1.0' in metrics


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5", "1e3", "9999999999"])
def test_a_budget_that_is_no_number_of_milliseconds_is_refused(
    text: str, client: FlaskClient, sample: dict[str, float]
) -> None:
    headers = {"X-Request-Timeout-Ms": text}
    answer: TestResponse = client.post("/predict", json={"features": sample}, headers=headers)
    assert answer.status_code == 400
    assert answer.json is not None
    assert "X-Request-Timeout-Ms must be a whole number" in answer.json["detail"]


def test_a_budget_changes_nothing_where_nobody_waits(
    client: FlaskClient, sample: dict[str, float]
) -> None:
    headers = {"X-Request-Timeout-Ms": "1"}
    assert client.post("/predict", json={"features": sample}, headers=headers).status_code == 200


def test_a_worker_may_not_drain_for_as_long_as_it_is_given_to_stop() -> None:
    variables = {
        "LANTERN_SERVER__DRAIN_SECONDS": "30",
        "LANTERN_SERVER__GRACEFUL_TIMEOUT_SECONDS": "30",
    }
    with pytest.raises(SettingsError, match=r"drain_seconds \(.+\) must be less than .+, 30"):
        load_settings(variables)
