"""The OpenAPI document: it describes the model that is loaded, and all of the service."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from flask import Flask
from flask.testing import FlaskClient


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
