"""The most probable classes or labels, where a request or the bundle asks for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests import step_models, task_models

SENTENCE = "where is my parcel"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return step_models.texts(tmp_path_factory.mktemp("top") / "topics" / "1")


@pytest.fixture
def client(texts: Path, make_app: Callable[..., Flask]) -> FlaskClient:
    return make_app(MODEL__PATH=str(texts)).test_client()


def top(client: FlaskClient, query: str = "") -> Any:
    answer = client.post(f"/predict{query}", data=SENTENCE, content_type="text/plain")
    assert answer.status_code == 200, answer.text
    listed: Any = answer.get_json().get("top")
    return listed


def test_the_request_says_how_many_or_else_the_bundle(client: FlaskClient) -> None:
    whole = client.post("/predict", json={"text": SENTENCE}).get_json()
    by_probability = sorted(
        (
            {"label": label, "class": i, "probability": whole["probabilities"][f"class_{i}"]}
            for i, label in enumerate(step_models.TOPICS)
        ),
        key=lambda each: -each["probability"],
    )
    assert whole["top"] == by_probability[:2]  # as the bundle says
    assert top(client, "?top=1") == by_probability[:1]
    assert top(client, "?top=3") == by_probability
    assert top(client, "?top=999") == by_probability
    assert top(client, f"?top={10**30}") == by_probability
    assert top(client, "?top=1&x=&top=3") == by_probability  # the last one wins
    assert top(client, "?top=0") is None
    assert len(top(client, "?on_top=0")) == 2


@pytest.mark.parametrize("value", ["", "-1", "1.5", "five", "1e3", "٣", "9" * 1001, "%ff", "+1"])
def test_what_is_no_number_is_refused_with_the_fix(client: FlaskClient, value: str) -> None:
    answer = client.post(f"/predict?top={value}", data=SENTENCE, content_type="text/plain")
    assert answer.status_code == 400
    assert "as top=5" in answer.get_json()["detail"]


def test_each_prediction_of_a_batch_has_it(client: FlaskClient) -> None:
    body = {"samples": [{"text": SENTENCE}, {"text": "cannot log in"}]}
    plain = client.post("/predict/batch?top=0", json=body).get_json()
    listed = client.post("/predict/batch?top=1", json=body).get_json()
    for without, having in zip(plain["predictions"], listed["predictions"], strict=True):
        (best,) = having.pop("top")
        assert best["label"] == having["label"]
        times = [each.pop("timestamp") for each in (without, having)]
        assert all(times)
        assert having == without
    assert client.post("/predict/batch?top=1", json={"samples": []}).get_json()["predictions"] == []


def test_models_with_features_have_it_too(tmp_path: Path, make_app: Callable[..., Flask]) -> None:
    sample = {"features": {"rooms": 3, "area": 120}}
    labels = make_app(MODEL__PATH=str(task_models.multilabel(tmp_path / "l" / "1"))).test_client()
    assert "top" not in labels.post("/predict", json=sample).get_json()
    answer = labels.post("/predict?top=2", json=sample).get_json()
    assert [each["probability"] for each in answer["top"]] == sorted(
        answer["probabilities"].values(), reverse=True
    )[:2]
    scores = make_app(MODEL__PATH=str(task_models.scores(tmp_path / "s" / "1"))).test_client()
    answer = scores.post("/predict?top=1", json=sample).get_json()
    assert answer["top"][0]["score"] == max(answer["scores"].values())
    numbers = make_app(MODEL__PATH=str(task_models.regression(tmp_path / "r" / "1"))).test_client()
    refused = numbers.post("/predict?top=1", json=sample)
    assert refused.status_code == 400
    assert "this one has none" in refused.get_json()["detail"]
