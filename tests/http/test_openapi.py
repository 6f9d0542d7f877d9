"""The OpenAPI document: it describes the model that is loaded, and all of the service."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.model.code.request import HandlerRequest
from tests.handler_bundles import with_handler
from tests.step_models import images


def test_the_document_describes_the_models_real_features(
    client: FlaskClient, manifest: dict[str, Any], sample: dict[str, float]
) -> None:
    document = client.get("/openapi.json").get_json()
    assert document["openapi"] == "3.0.3"
    features = document["components"]["schemas"]["Features"]
    assert features["required"] == list(sample)
    for feature in manifest["features"]:
        described = features["properties"][feature["name"]]
        assert feature["description"] in described["description"]
        assert described.get("nullable", False) == feature["nullable"]
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert content["application/json"]["example"] == {"features": sample}


def test_the_examples_of_the_document_are_accepted(client: FlaskClient) -> None:
    document = client.get("/openapi.json").get_json()
    for path in ("/predict", "/predict/batch"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        response = client.post(path, json=body["example"])
        assert response.status_code == 200
        promised = document["paths"][path]["post"]["responses"]["200"]["content"]
        example, answer = promised["application/json"]["example"], response.get_json()
        assert list(example) == list(answer)
        for one, other in zip(
            example.get("predictions", [example]), answer.get("predictions", [answer]), strict=True
        ):
            assert one["probabilities"] == other["probabilities"]


def test_the_example_of_the_protocol_is_accepted(client: FlaskClient) -> None:
    document = client.get("/openapi.json").get_json()
    for rule in ("", "/versions/{version}"):
        operation = document["paths"][f"/v2/models/{{name}}{rule}/infer"]["post"]
        examples = {each["name"]: each.get("example") for each in operation["parameters"]}
        path = f"/v2/models/campaign-response{rule}/infer".format(version=examples.get("version"))
        body = operation["requestBody"]["content"]["application/json"]["example"]
        assert client.post(path, json=body).status_code == 200


def test_every_operation_has_a_name_of_its_own(client: FlaskClient) -> None:
    paths = client.get("/openapi.json").get_json()["paths"]
    names = [each["operationId"] for operations in paths.values() for each in operations.values()]
    assert len(set(names)) == len(names)


def test_every_route_is_described_or_belongs_to_the_documentation(client: FlaskClient) -> None:
    described = set(client.get("/openapi.json").get_json()["paths"])
    rules = client.application.url_map.iter_rules()
    routes = {re.sub(r"<(\w+)>", r"{\1}", rule.rule) for rule in rules}
    undescribed = {route for route in routes - described if not route.startswith("/docs")}
    assert undescribed == {
        "/static/<path:filename>", "/openapi.json", "/apidocs/", "/apidocs/index.html",
        "/oauth2-redirect.html",
    }  # fmt: skip
    assert described <= routes


def test_without_a_model_the_document_still_stands(make_app: Callable[..., Flask]) -> None:
    client = make_app(MODEL__PATH="/nowhere").test_client()
    document = client.get("/openapi.json").get_json()
    assert document["components"]["schemas"]["Features"]["type"] == "object"


ECHO = "class Handler:\n    def predict(self, request): return {'sent': request.body.hex()}\n"


def contents(client: FlaskClient, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content, by media types, of a request to ``path`` and of its answer."""
    operation = client.get("/openapi.json").get_json()["paths"][path]["post"]
    return operation["requestBody"]["content"], operation["responses"]["200"]["content"]


@pytest.mark.parametrize(
    ("sent", "example"),
    [
        (HandlerRequest(b'{"value": 2}', "application/json"), {"value": 2}),
        (HandlerRequest(b"Rome 85.5", "text/plain"), "Rome 85.5"),
        (HandlerRequest(b"\x89PNG\0", "image/png"), None),
        (HandlerRequest(b"\x89PNG\0"), None),
    ],
)
def test_the_example_of_a_handler_is_its_golden_request(
    sent: HandlerRequest, example: Any, tmp_path: Path, make_app: Callable[..., Flask]
) -> None:
    with_handler(tmp_path / "m" / "1", ECHO, requests=[sent])
    client = make_app(MODEL__PATH=str(tmp_path / "m"), MODEL__ALLOW_CODE="m").test_client()
    taken, answered = contents(client, "/predict")
    shown = sent.content_type if example is not None else "multipart/form-data"
    assert next(iter(taken)) == shown
    assert taken[shown].get("example") == example
    assert {"multipart/form-data", "*/*", *filter(None, [sent.content_type])} == taken.keys()
    assert answered["application/json"]["example"] == {"sent": sent.body.hex()}
    in_json, many = (each["application/json"] for each in contents(client, "/predict/batch"))
    if example is not None:
        answer = client.post("/predict/batch", json=in_json["example"]).get_json()
        assert answer["total_samples"] == 2
        assert answer.keys() == many["example"].keys()
    if isinstance(example, str):
        assert answer == many["example"]


def test_a_request_that_is_too_long_is_no_example(
    tmp_path: Path, make_app: Callable[..., Flask]
) -> None:
    long = HandlerRequest(b"x" * 10_000, "text/plain")
    with_handler(tmp_path / "m" / "1", ECHO, requests=[long])
    client = make_app(MODEL__PATH=str(tmp_path / "m"), MODEL__ALLOW_CODE="m").test_client()
    taken, answered = contents(client, "/predict")
    assert [*taken] == ["multipart/form-data", "*/*"]
    assert "example" not in answered["application/json"]
    page = client.get("/", headers={"Accept": "text/html"}).text
    assert "curl http://localhost/predict -F data=@FILE" in page


def test_forms_are_described_where_they_are_taken(
    client: FlaskClient, tmp_path: Path, make_app: Callable[..., Flask]
) -> None:
    assert "multipart/form-data" not in contents(client, "/predictions/{name}")[0]
    images(tmp_path / "photos" / "1")
    photos = make_app(MODEL__PATH=str(tmp_path / "photos")).test_client()
    assert "multipart/form-data" in contents(photos, "/predictions/{name}")[0]
