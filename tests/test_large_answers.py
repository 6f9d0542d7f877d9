"""The size of an answer is bounded before the network runs, and a large one is made in parts."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from flask import Flask
from werkzeug.test import EnvironBuilder

from app.model.model import Model
from app.model.signature import Tensors, row_count
from app.protocols.native import answers
from app.telemetry.version_counts import MAX_SERIES
from app.worker.contract import held_bytes
from tests.conftest import MANY

SAMPLE = {"age": 40, "income": None, "visits": 3}
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(params=["true", "false"], ids=["fast path", "Flask"])
def app(
    request: pytest.FixtureRequest, make_app: Callable[..., Flask], many_classes: Path
) -> Flask:
    """An application on a model of `MANY` classes, which answers by either way."""
    return make_app(
        MODEL__PATH=str(many_classes),
        SERVER__FAST_PATH=request.param,
        LIMITS__MAX_ANSWER_VALUES=str(MANY * 50),
    )


@pytest.fixture
def small_parts() -> Iterator[None]:
    """Make parts of about two rows."""
    with patch.object(answers, "PART_BYTES", 2 * MANY * 32):
        yield


def send(app: Flask, path: str, document: object) -> tuple[str, dict[str, str], Any]:
    """Call the application as a server does; the body is as it was returned."""
    body = json.dumps(document).encode()
    environ = EnvironBuilder(path, method="POST", data=body).get_environ()
    environ |= {"CONTENT_TYPE": "application/json", "wsgi.input": io.BytesIO(body)}
    started: list[Any] = []
    parts = app(environ, lambda status, headers, exc=None: started.append((status, headers)))
    status, headers = started[-1]
    return status, dict(headers), parts


def batch(rows: int) -> dict[str, Any]:
    return {"samples": [SAMPLE] * rows}


def model_of(app: Flask) -> Model:
    model: Model = app.extensions["lantern"].default_service.current()
    return model


def test_an_answer_that_is_too_large_is_refused_before_the_network_runs(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, runs = model_of(app), []
    run = model.runtime.run

    def counted(rows: Tensors) -> Tensors:
        runs.append(row_count(rows))
        return run(rows)

    monkeypatch.setattr(model.runtime, "run", counted)
    client = app.test_client()
    refused = client.post("/predict/batch", json=batch(51))
    assert refused.status_code == 413
    problem = refused.get_json()
    assert problem["type"] == "urn:lantern:problem:answer-too-large"
    for said in ("51 rows", f"{MANY} values", "10,200", "10,000", "limits.max_answer_values", "50"):
        assert said in problem["detail"]
    assert problem["errors"][0]["pointer"] == "/samples"
    assert runs == []
    # What it says would fit does.
    assert client.post("/predict/batch", json=batch(50)).get_json()["total_samples"] == 50
    assert client.post("/predict", json={"features": SAMPLE}).status_code == 200
    assert runs == [50, 1]


def test_the_largest_batch_is_told_where_callers_look(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/model/info").get_json()["max_batch_size"] == 50
    document = client.get("/openapi.json").get_json()
    body = document["paths"]["/predict/batch"]["post"]["requestBody"]["content"]
    samples = body["application/json"]["schema"]["properties"]["samples"]
    assert "At most 50 samples" in samples["description"]


def test_a_model_that_could_answer_nothing_is_not_served_and_says_why(
    make_app: Callable[..., Flask], many_classes: Path
) -> None:
    app = make_app(MODEL__PATH=str(many_classes), LIMITS__MAX_ANSWER_VALUES=str(MANY - 1))
    health = app.test_client().get("/health")
    assert health.status_code == 503
    reason = health.get_json()["reason"]
    assert f"answers {MANY} values for a row" in reason
    assert f"limits.max_answer_values is {MANY - 1}" in reason
    app = make_app(MODEL__PATH=str(many_classes), LIMITS__MAX_ANSWER_VALUES=str(MANY))
    assert app.test_client().post("/predict/batch", json=batch(1)).status_code == 200
    assert app.test_client().post("/predict/batch", json=batch(2)).status_code == 413


@pytest.mark.usefixtures("small_parts")
def test_a_large_answer_is_made_in_parts_that_are_what_one_would_be(app: Flask) -> None:
    status, headers, parts = send(app, "/predict/batch", batch(21))
    assert status == "200 OK"
    assert "Content-Length" not in headers
    assert headers["Content-Type"] == "application/json"
    made = list(parts)
    parts.close()
    assert len(made) > 8
    assert all(type(part) is bytes and part for part in made)
    answer = json.loads(b"".join(made))
    assert answer["total_samples"] == len(answer["predictions"]) == 21
    [whole] = send(app, "/predict/batch", batch(1))[2]
    [alone] = json.loads(whole)["predictions"]
    assert [row | {"timestamp": 0} for row in answer["predictions"]] == [
        alone | {"timestamp": 0}
    ] * 21


def test_an_answer_of_one_part_has_a_length(app: Flask) -> None:
    for path, document in (("/predict/batch", batch(3)), ("/predict", {"features": SAMPLE})):
        _, headers, parts = send(app, path, document)
        assert int(headers["Content-Length"]) == len(b"".join(parts))


@pytest.mark.usefixtures("small_parts")
def test_a_single_answer_of_very_many_values_comes_in_parts_too(app: Flask) -> None:
    with patch.object(answers, "PART_BYTES", MANY * 8):
        _, _, parts = send(app, "/predict", {"features": SAMPLE})
        made = list(parts)
    assert len(made) > 2
    assert len(json.loads(b"".join(made))["probabilities"]) == MANY


@pytest.mark.usefixtures("small_parts")
def test_a_request_is_logged_and_counted_once_its_answer_is_whole(
    app: Flask, log_lines: Lines
) -> None:
    metrics = app.extensions["lantern"].metrics
    _, headers, parts = send(app, "/predict/batch", batch(21))
    iterator = iter(parts)
    next(iterator)
    assert [line for line in log_lines() if line["message"] == "request"] == []
    assert len(list(iterator)) > 8
    parts.close()
    [line] = [line for line in log_lines() if line["message"] == "request"]
    assert (line["status"], line["rows"]) == (200, 21)
    assert line["request_id"] == headers["X-Request-ID"]
    assert "complete" not in line
    counted = b'lantern_http_requests_total{method="POST",route="/predict/batch",status="200"} 1.0'
    assert counted in metrics.exposition()


@pytest.mark.usefixtures("small_parts")
def test_an_answer_that_is_given_up_is_logged_as_such_and_lets_go_of_all(
    app: Flask, log_lines: Lines
) -> None:
    _, _, parts = send(app, "/predict/batch", batch(21))
    next(iter(parts))
    parts.close()
    parts.close()
    [line] = [line for line in log_lines() if line["message"] == "request"]
    assert (line["status"], line["complete"]) == (200, False)


@pytest.mark.usefixtures("small_parts")
def test_what_is_held_for_the_parts_is_told_to_the_worker_and_the_body_let_go(app: Flask) -> None:
    body = json.dumps(batch(21)).encode()
    stream = io.BytesIO(body)
    environ = EnvironBuilder("/predict/batch", method="POST", data=body).get_environ()
    environ |= {"CONTENT_TYPE": "application/json", "wsgi.input": stream}
    parts = app(environ, lambda status, headers, exc=None: None)
    next(iter(parts))
    assert environ["wsgi.input"] is not stream
    assert 21 * MANY * 4 < held_bytes(environ) < 21 * MANY * 4 + 10_000
    parts.close()


@pytest.mark.usefixtures("small_parts")
def test_what_is_wrong_with_the_last_row_is_found_before_the_answer_begins(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = model_of(app).runtime
    run = runtime.run

    def overflowing(rows: Tensors) -> Tensors:
        outputs = run(rows)
        outputs["probabilities"][-1, -1] = np.nan
        return outputs

    monkeypatch.setattr(runtime, "run", overflowing)
    answer = app.test_client().post("/predict/batch", json=batch(21))
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.get_json()["errors"]] == ["/samples/20"]


@pytest.mark.usefixtures("small_parts")
def test_a_fault_of_ours_in_the_first_part_is_an_error_and_no_broken_answer(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_digits", lambda numbers: 1 / 0)
    answer = app.test_client().post("/predict/batch", json=batch(21))
    assert answer.status_code == 500
    assert answer.get_json()["title"] == "Internal Server Error"


def test_a_model_of_many_classes_has_few_series(app: Flask) -> None:
    predicted = np.arange(MANY)
    parts = app.extensions["lantern"]
    model = model_of(app)
    parts.metrics.predicted(
        model,
        2 * MANY,
        {model.classes[i]: 2 for i in predicted},
        {},
    )
    series = [
        line
        for line in parts.metrics.exposition().decode().splitlines()
        if line.startswith("lantern_predictions_total{")
    ]
    assert len(series) == MAX_SERIES + 1
    [others] = [line for line in series if 'class="(other)"' in line]
    assert float(others.split()[-1]) == 2 * (MANY - MAX_SERIES)
    assert f'"{model.classes[0]}"' in series[0]


def test_documents_about_a_model_of_many_classes_name_some(app: Flask) -> None:
    client = app.test_client()
    document = client.get("/openapi.json")
    assert f"and {MANY - 100} more" in document.get_json()["info"]["description"]
    assert len(document.data) < 80_000  # the names alone would be more
    page = client.get("/", headers={"Accept": "text/html"})
    assert page.status_code == 200


def test_the_page_of_a_model_that_fits_no_form_says_so(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.blueprints.info._MAX_NAMES", MANY - 1)
    page = app.test_client().get("/", headers={"Accept": "text/html"}).text
    assert "too many for a form" in page
    assert "page.js" not in page
    assert "label 0" not in page.partition("<dl")[0]


def test_the_whole_of_a_request_takes_no_more_memory_than_the_capacity_page_states(
    make_app: Callable[..., Flask], many_classes: Path
) -> None:
    """12 bytes for each value of the answer at the most, of which the network has 8, and 16 MiB; as
    JSON the answer is twice the former.
    """
    app = make_app(MODEL__PATH=str(many_classes), LOGGING__LEVEL="ERROR")
    document, values = batch(5000), 5000 * MANY
    size = sum(map(len, send(app, "/predict/batch", document)[2]))  # and what is made once is made
    tracemalloc.start()
    try:
        for _ in send(app, "/predict/batch", document)[2]:
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert values == 1_000_000  # what the default admits
    assert peak < 12 * values + 16 * 2**20
    assert size > 24 * values
