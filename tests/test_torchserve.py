"""TorchServe's inference API: its callers get what they know."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from app.model.code.request import HandlerRequest
from app.protocols.torchserve import error_document
from app.settings import load_settings
from tests.handler_bundles import with_handler
from tests.step_models import images, picture, texts
from tests.task_models import regression

PICTURE = picture()
REPEATING = """
class Handler:
    def load(self, bundle):
        self.bundle = bundle

    def predict(self, request):
        if request.body == b"bad":
            raise self.bundle.error("not this one", 418)
        if request.body == b"fault":
            raise RuntimeError("secret")
        more = dict(request.parameters)
        return {"sent": request.body.decode(), "as": request.field, "more": more}
"""


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, FlaskClient]:
    root = tmp_path_factory.mktemp("models")
    images(root / "colours" / "1.0")
    texts(root / "topics" / "1.0")
    regression(root / "prices" / "1.0")
    with_handler(root / "own" / "1.0", REPEATING, requests=[HandlerRequest(b"x")])
    settings = {"LANTERN_MODEL__ALLOW_CODE": "true"}
    return {
        name: create_app(
            load_settings({**settings, "LANTERN_MODEL__PATH": str(root / name)})
        ).test_client()
        for name in ("colours", "topics", "prices", "own")
    }


def error(response: TestResponse) -> tuple[int, str]:
    """Return the status and the type of an error, which must be in TorchServe's form."""
    document = response.get_json()
    assert response.content_type == "application/json"
    assert set(document) == {"code", "type", "message"}
    assert document["code"] == response.status_code
    return document["code"], document["type"]


@pytest.mark.parametrize("path", ["/predictions/colours", "/predictions/colours/1.0"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("media_type", ["", "image/png", "application/x-www-form-urlencoded"])
def test_a_picture_is_sent_as_it_is_whatever_it_is_declared_as(
    path: str, method: str, media_type: str, clients: Mapping[str, FlaskClient]
) -> None:
    answer = clients["colours"].open(path, method=method, data=PICTURE, content_type=media_type)
    assert answer.status_code == 200, answer.text
    assert next(iter(answer.get_json())) == "red"  # the most probable first


@pytest.mark.parametrize("field", ["data", "body"])
def test_a_form_has_the_picture_in_one_field(
    field: str, clients: Mapping[str, FlaskClient]
) -> None:
    form = {field: (io.BytesIO(PICTURE), "a.png")}
    answer = clients["colours"].post("/predictions/colours?top=1", data=form)
    assert [*answer.get_json()] == ["red"]


def test_json_has_the_picture_in_base64(clients: Mapping[str, FlaskClient]) -> None:
    sent = base64.b64encode(PICTURE).decode()
    for document in (sent, {"data": sent}, {"body": sent}):
        answer = clients["colours"].post("/predictions/colours", json=document)
        assert next(iter(answer.get_json())) == "red", answer.text


def test_a_text_is_answered_by_the_names_of_its_classes(
    clients: Mapping[str, FlaskClient],
) -> None:
    native = clients["topics"].post("/predict", json={"text": "where is my parcel"}).get_json()
    for body in ({"data": b"where is my parcel"}, {"json": {"data": "where is my parcel"}}):
        arguments: Any = body
        answer = clients["topics"].post("/predictions/topics?top=3", **arguments).get_json()
        assert answer["delivery"] == native["probabilities"]["class_1"]
        assert [*answer] == ["delivery", "account", "billing"]


def test_features_are_sent_as_to_the_native_api(clients: Mapping[str, FlaskClient]) -> None:
    sample = {"features": {"rooms": 3, "area": 80}}
    answer = clients["prices"].post("/predictions/prices", json=sample)
    assert answer.get_json() == {"price": 83.0}


def test_a_handler_gets_the_request_and_its_answer_is_sent_as_it_is(
    clients: Mapping[str, FlaskClient],
) -> None:
    own = clients["own"]
    assert own.put("/predictions/own?size=2", data=b"hello").get_json() == {
        "sent": "hello",
        "as": "body",
        "more": {"size": "2"},
    }
    form = {"data": (io.BytesIO(b"hello"), "a.bin"), "size": "3"}
    assert own.post("/predictions/own", data=form).get_json() == {
        "sent": "hello",
        "as": "data",
        "more": {"size": "3"},
    }


@pytest.mark.parametrize(
    ("call", "arguments", "said"),
    [
        ("colours POST /predictions/nope", {}, (404, "ModelNotFoundException")),
        ("colours POST /predictions/colours/9", {}, (404, "ModelVersionNotFoundException")),
        ("colours POST /predictions", {}, (404, "ResourceNotFoundException")),
        ("colours POST /predictions/", {}, (404, "ResourceNotFoundException")),
        ("colours GET /predictions/colours", {}, (405, "MethodNotAllowedException")),
        ("colours GET /ping/", {}, (404, "ResourceNotFoundException")),
        ("colours POST ///predictions/nope", {}, (404, "ModelNotFoundException")),
        ("colours POST //predictions/colours", {"data": b"x"}, (422, "BadRequestException")),
        ("colours POST //predictions/colours/9", {}, (404, "ModelVersionNotFoundException")),
        ("colours POST //ping", {}, (405, "MethodNotAllowedException")),
        ("colours POST /predictions/colours", {"data": b"x"}, (422, "BadRequestException")),
        ("colours POST /predictions/colours", {"json": {}}, (400, "BadRequestException")),
        ("colours POST /predictions/colours", {"json": "?"}, (400, "BadRequestException")),
        ("colours POST /predictions/colours", {"data": {"x": "y"}}, None),
        ("topics POST /predictions/topics", {"data": b"\xff"}, (400, "BadRequestException")),
        ("prices POST /predictions/prices", {"json": {}}, (422, "BadRequestException")),
        ("own POST /predictions/own", {"data": b"bad"}, (418, "InternalServerException")),
        ("own POST /predictions/own", {"data": b"fault"}, (500, "InternalServerException")),
    ],
)
def test_errors_have_their_form(
    call: str,
    arguments: dict[str, Any],
    said: tuple[int, str] | None,
    clients: Mapping[str, FlaskClient],
) -> None:
    model, method, path = call.split()
    response = clients[model].open(
        "/", environ_overrides={"PATH_INFO": path}, method=method, **arguments
    )
    assert error(response) == (said or (response.status_code, "BadRequestException"))
    assert "secret" not in response.text


def test_a_fault_is_reported_by_the_id_in_the_message_and_in_the_header(
    clients: Mapping[str, FlaskClient],
) -> None:
    for sent in ({}, {"X-Request-ID": "mine-7"}):
        response = clients["own"].post("/predictions/own", data=b"fault", headers=sent)
        request_id = response.headers["X-Request-ID"]
        assert request_id == sent.get("X-Request-ID", request_id)
        assert response.get_json()["message"].endswith(f"quote the request id {request_id}.")
        native = clients["own"].post("/predict", data=b"fault", headers=sent)
        assert f"quote the request id {native.get_json()['request_id']}." in native.text


def test_ping_says_whether_the_worker_is_ready(
    clients: Mapping[str, FlaskClient], tmp_path: Any
) -> None:
    answer = clients["colours"].get("/ping")
    assert (answer.status_code, answer.get_json()) == (200, {"status": "Healthy"})
    missing = {"LANTERN_MODEL__PATH": str(tmp_path / "none")}
    code, _ = error(create_app(load_settings(missing)).test_client().get("/ping"))
    assert code == 503


@pytest.mark.parametrize(
    "path", ["/pingpong", "/predictionsx", "/x/predictions", "/v2/ping", "//v2/ping"]
)
def test_errors_of_other_paths_do_not(path: str, clients: Mapping[str, FlaskClient]) -> None:
    found = clients["colours"].get("/", environ_overrides={"PATH_INFO": path})
    assert found.status_code in (404, 405)
    assert found.get_json()["request_id"]
    assert ("error" in found.get_json()) == ("v2" in path)


@pytest.mark.parametrize("status", [400, 408, 413, 414, 429, 431])
def test_what_a_caller_did_is_no_fault_of_the_server(status: int) -> None:
    named = json.loads(error_document(status, "", "too much"))
    assert named["code"] == status
    assert named["type"] != "InternalServerException"
