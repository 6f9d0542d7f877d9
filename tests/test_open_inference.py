"""The Open Inference Protocol over HTTP: what clients of KServe, Triton and MLServer get."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from app import create_app
from app.access.keys import METRICS, PREDICT, create_key
from app.http.extension import Lantern
from app.model.signature import Tensors
from app.registry.release import Release, write_release
from app.settings import load_settings
from tests.conftest import ROOT
from tests.small_model import CLASSES, FEATURES
from tests.telemetry.test_metrics import samples

Make = Callable[..., Flask]
Lines = Callable[[], list[dict[str, Any]]]

NAMES = [feature.name for feature in FEATURES]
ROWS = [[30.0, 20_000.0, 1.0], [60.0, None, 9.0]]
MODEL = "/v2/models/example"
JSON_BYTES = "Inference-Header-Content-Length"


@pytest.fixture(scope="module", params=["true", "false"], ids=["fast path", "Flask"])
def client(request: pytest.FixtureRequest, packed: Path) -> FlaskClient:
    """A client of the small model."""
    settings = {
        "LANTERN_MODEL__PATH": str(packed.parent),
        "LANTERN_SERVER__FAST_PATH": request.param,
    }
    return create_app(load_settings(settings)).test_client()


def one_tensor(rows: list[list[float | None]] = ROWS) -> dict[str, Any]:
    values = [value for row in rows for value in row]
    shape = [len(rows), len(NAMES)]
    return {"name": "features", "shape": shape, "datatype": "FP32", "data": values}


def columns(rows: list[list[float | None]] = ROWS) -> list[dict[str, Any]]:
    """An input for each feature, as codecs of pandas send them."""
    return [
        {"name": name, "shape": [len(rows), 1], "datatype": "FP64", "data": list(values)}
        for name, values in zip(NAMES, zip(*rows, strict=True), strict=True)
    ]


def infer(client: FlaskClient, document: Any, path: str = MODEL, **headers: str) -> TestResponse:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"{path}/infer", data=body, headers=named)


def outputs(response: TestResponse) -> dict[str, list[Any]]:
    assert response.status_code == 200, response.get_data(as_text=True)
    return {output["name"]: output["data"] for output in response.get_json()["outputs"]}


def assert_error(response: TestResponse, status: int) -> dict[str, Any]:
    """Check that an error is what clients of the protocol read, and a problem document."""
    assert response.status_code == status, response.get_data(as_text=True)
    assert response.content_type == "application/json"
    document: dict[str, Any] = response.get_json()
    assert document["error"] == document["detail"]
    assert document["error"]
    assert document["status"] == status
    return document


def predicted(client: FlaskClient) -> list[dict[str, Any]]:
    """The same rows by the native API."""
    sent = {"samples": [dict(zip(NAMES, row, strict=True)) for row in ROWS]}
    found: list[dict[str, Any]] = client.post("/predict/batch", json=sent).get_json()["predictions"]
    return found


@pytest.mark.parametrize("inputs", [[one_tensor()], columns()], ids=["one tensor", "columns"])
def test_answers_are_those_of_the_native_api(
    client: FlaskClient, inputs: list[dict[str, Any]]
) -> None:
    answered = outputs(infer(client, {"inputs": inputs}))
    assert list(answered) == ["probabilities", "prediction", "label"]
    expected = predicted(client)
    assert answered["label"] == [each["label"] for each in expected]
    assert answered["prediction"] == [each["prediction"] for each in expected]
    assert answered["probabilities"] == [
        value for each in expected for value in each["probabilities"].values()
    ]


def test_columns_are_numbers_of_any_datatype_in_any_order(client: FlaskClient) -> None:
    mixed = [
        {"name": "visits", "shape": [1], "datatype": "UINT8", "data": [3]},
        {"name": "income", "shape": [1, 1], "datatype": "INT64", "data": [[50_000]]},
        {"name": "age", "shape": [1], "datatype": "FP16", "data": [40.5]},
    ]
    assert outputs(infer(client, {"inputs": mixed})) == outputs(
        infer(client, {"inputs": [one_tensor([[40.5, 50_000, 3]])]})
    )


def test_tensors_come_and_go_in_binary(client: FlaskClient) -> None:
    data = np.array(ROWS, dtype="<f4").tobytes()
    tensor = {key: value for key, value in one_tensor().items() if key != "data"}
    tensor["parameters"] = {"binary_data_size": len(data)}
    document = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    text = json.dumps(document).encode()
    in_json = outputs(infer(client, {"inputs": [one_tensor()]}))

    response = infer(client, text + data, Inference_Header_Content_Length=str(len(text)))
    assert response.status_code == 200
    assert response.content_type == "application/octet-stream"
    body, json_bytes = response.data, int(response.headers[JSON_BYTES])
    answered = json.loads(body[:json_bytes])["outputs"]
    sizes = [output["parameters"]["binary_data_size"] for output in answered]
    assert len(body) == json_bytes + sum(sizes)
    probabilities = np.frombuffer(body, dtype="<f4", offset=json_bytes, count=6)
    assert probabilities.tolist() == np.array(in_json["probabilities"], dtype="f4").tolist()
    labels = b"".join(
        len(label).to_bytes(4, "little") + label.encode() for label in in_json["label"]
    )
    assert body.endswith(labels)

    raw = infer(client, data, Inference_Header_Content_Length="0")
    assert raw.data[int(raw.headers[JSON_BYTES]) :] == body[json_bytes:]


def test_outputs_are_those_that_are_asked_for_in_their_order(client: FlaskClient) -> None:
    wanted = [
        {"name": "label"},
        {"name": "probabilities", "parameters": {"binary_data": False, "classification": 2}},
    ]
    answered = outputs(infer(client, {"inputs": [one_tensor()], "outputs": wanted}))
    assert list(answered) == ["label", "probabilities"]
    ranked = [entry.split(":") for entry in answered["probabilities"]]
    for row, prediction in enumerate(predicted(client)):
        first, second = ranked[2 * row : 2 * row + 2]
        assert first[1:] == [str(prediction["prediction"]), prediction["label"]]
        values = sorted(prediction["probabilities"].values(), reverse=True)
        assert [float(first[0]), float(second[0])] == values[:2]
    every = [{"name": "probabilities", "parameters": {"classification": 99}}]
    response = infer(client, {"inputs": [one_tensor()], "outputs": every})
    assert response.get_json()["outputs"][0]["shape"] == [2, len(CLASSES)]


def test_the_id_is_the_callers_or_a_new_one(client: FlaskClient) -> None:
    given_id = infer(client, {"id": "mine", "inputs": [one_tensor()]}).get_json()
    assert given_id["id"] == "mine"
    assert given_id["model_name"] == "example"
    assert given_id["model_version"] == "1"
    response = infer(client, {"inputs": [one_tensor()]})
    assert response.get_json()["id"] == response.headers["X-Request-ID"]


def test_an_empty_batch_is_answered(client: FlaskClient) -> None:
    assert outputs(infer(client, {"inputs": [one_tensor([])]})) == {
        "probabilities": [], "prediction": [], "label": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "pointer", "detail"),
    [
        ([], "/inputs", "has no input 'age'"),
        (columns()[:2], "/inputs", "has no input 'visits'"),
        ([*columns(), one_tensor()], "/inputs/3/name", "is not a feature of this model"),
        ([one_tensor() | {"datatype": "FP64"}], "/inputs/0/datatype", "must be FP32"),
        ([one_tensor() | {"shape": [6]}], "/inputs/0/shape", "must be [rows, 3]"),
        ([one_tensor() | {"shape": [3, 2]}], "/inputs/0/shape", "must be [rows, 3]"),
        ([one_tensor() | {"shape": [1, 2, 3]}], "/inputs/0/shape", "must be [rows, 3]"),
        ([one_tensor([[None, 1, 1]])], "/inputs/0/data/0", "must be a number; null (NaN) is not"),
        ([one_tensor([ROWS[0], [1, 1, None]])], "/inputs/0/data/5", "must be a number"),
        (columns([[1, 1, 1], [1, 1, None]]), "/inputs/2/data/1", "must be a number"),
        (columns([[1e39, 1, 1]]), "/inputs/0/data/0", "must be finite as a 32-bit float"),
        (
            [*columns()[:2], columns()[2] | {"datatype": "BOOL", "data": [True, False]}],
            "/inputs/2/datatype",
            "must be that of a number, not BOOL",
        ),
        (
            [*columns()[:2], columns()[2] | {"shape": [1, 2]}],
            "/inputs/2/shape",
            "must be [rows] or [rows, 1]",
        ),
        (
            [*columns()[:2], columns()[2] | {"shape": [1], "data": [1]}],
            "/inputs/2/shape",
            "is that of 1 rows, and 'age' has 2",
        ),
    ],
)
def test_what_is_wrong_is_a_sentence_with_its_place(
    client: FlaskClient, inputs: list[dict[str, Any]], pointer: str, detail: str
) -> None:
    document = assert_error(infer(client, {"inputs": inputs}), 400)
    assert document["errors"][0]["pointer"] == pointer
    assert document["errors"][0]["detail"].startswith(detail)


def test_features_that_are_not_the_models_are_named(client: FlaskClient) -> None:
    renamed = [column | {"name": column["name"] + "e"} for column in columns()[:1]]
    document = assert_error(infer(client, {"inputs": [*renamed, *columns()[1:]]}), 400)
    assert document["error"].startswith("Feature mismatch. Missing: ['age'], Extra: ['agee'].")


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [
        ({"name": "logits"}, "/outputs/0/name"),
        ({"name": "label", "parameters": {"classification": 1}},
         "/outputs/0/parameters/classification"),
    ],
)  # fmt: skip
def test_an_output_that_there_is_not_is_refused(
    client: FlaskClient, wanted: dict[str, Any], pointer: str
) -> None:
    document = assert_error(infer(client, {"inputs": [one_tensor()], "outputs": [wanted]}), 400)
    assert document["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "", "9" * 30, "٣", "1, 1"])
def test_a_header_that_is_no_number_of_bytes_is_refused(client: FlaskClient, value: str) -> None:
    headers = {JSON_BYTES: value.encode().decode("latin-1")}
    response = client.post(f"{MODEL}/infer", data=b"{}", headers=headers)
    document = assert_error(response, 400)
    assert document["error"].startswith("Inference-Header-Content-Length must be the number")


@pytest.mark.parametrize("content_type", [None, "application/json", "application/octet-stream"])
def test_clients_differ_in_the_type_that_they_send(
    client: FlaskClient, content_type: str | None
) -> None:
    body = json.dumps({"inputs": [one_tensor()]})
    response = client.post(f"{MODEL}/infer", data=body, content_type=content_type)
    assert response.status_code == 200


def test_another_type_is_refused(client: FlaskClient) -> None:
    response = client.post(f"{MODEL}/infer", data=b"{}", content_type="text/csv")
    assert "Content-Type must be application/json" in assert_error(response, 415)["error"]


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_body_may_be_compressed(
    client: FlaskClient, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    data = json.dumps({"inputs": [one_tensor()]}).encode()
    body = compress(data)
    headers = {"Content_Encoding": encoding}
    assert outputs(infer(client, body, **headers)) == outputs(infer(client, data))
    for wrong, said in ((data, "it is not"), (body[:-1], "it ends early"), (body + b"x", "follow")):
        error = assert_error(infer(client, wrong, **headers), 400)["error"]
        assert said in error


def test_an_encoding_that_is_not_known_is_refused(client: FlaskClient) -> None:
    response = infer(client, b"", Content_Encoding="br")
    assert "send it as gzip or deflate" in assert_error(response, 415)["error"]


def test_a_body_may_not_become_larger_than_any_other(packed: Path, make_app: Make) -> None:
    app = make_app(MODEL__PATH=str(packed.parent), LIMITS__MAX_BODY_BYTES="2000")
    body = json.dumps({"inputs": [one_tensor()]}).encode().ljust(2001)
    document = assert_error(
        infer(app.test_client(), gzip.compress(body), Content_Encoding="gzip"), 413
    )
    assert "2,000 bytes" in document["error"]
    fits = gzip.compress(body[:-1])
    assert infer(app.test_client(), fits, Content_Encoding="gzip").status_code == 200


def test_rows_and_values_are_limited_as_everywhere(packed: Path, make_app: Make) -> None:
    settings = {"LIMITS__MAX_BATCH_SIZE": "3", "LIMITS__MAX_ANSWER_VALUES": "9"}
    client = make_app(MODEL__PATH=str(packed.parent), **settings).test_client()
    rows = [ROWS[0]] * 4
    document = assert_error(infer(client, {"inputs": columns(rows)}), 413)
    assert document["errors"][0]["pointer"] == "/inputs"
    assert "4 rows exceeds the limit of 3 rows" in document["error"]
    assert infer(client, {"inputs": columns(rows[:3])}).status_code == 200
    # The names of classes count, too.
    ranked = [{"name": "probabilities", "parameters": {"classification": 1}}]
    document = assert_error(infer(client, {"inputs": columns(rows[:3]), "outputs": ranked}), 413)
    assert document["type"].endswith("answer-too-large")
    config = client.get(f"{MODEL}/config").get_json()
    assert config["max_batch_size"] == 3


def test_values_without_a_finite_answer_are_refused(packed: Path, make_app: Make) -> None:
    app = make_app(MODEL__PATH=str(packed.parent))
    lantern: Lantern = app.extensions["lantern"]
    runtime = lantern.default_service.current().runtime
    original = runtime.run

    def no_numbers(inputs: Tensors) -> Tensors:
        return {name: array * np.nan for name, array in original(inputs).items()}

    runtime.run = no_numbers  # type: ignore[method-assign]
    document = assert_error(infer(app.test_client(), {"inputs": [one_tensor()]}), 400)
    assert document["type"].endswith("non-finite-output")


def test_what_a_model_takes_and_gives_is_told(client: FlaskClient) -> None:
    metadata = client.get(MODEL).get_json()
    assert metadata == {
        "name": "example",
        "platform": "onnxruntime_onnx",
        "versions": ["1"],
        "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "prediction", "datatype": "INT64", "shape": [-1]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ],
    }
    assert client.get(f"{MODEL}/versions/1").get_json() == metadata
    assert client.get(f"{MODEL}/ready").get_json() == {"name": "example", "ready": True}
    config = client.get(f"{MODEL}/config").get_json()
    assert config["input"] == [{"name": "features", "data_type": "TYPE_FP32", "dims": [3]}]
    assert [output["data_type"] for output in config["output"]] == [
        "TYPE_FP32", "TYPE_INT64", "TYPE_STRING",
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_says_what_it_is_without_a_redirect(client: FlaskClient, path: str) -> None:
    document = client.get(path).get_json()
    assert document["name"] == "lantern"
    assert {"name", "version", "extensions"} == document.keys()
    assert "binary_tensor_data" in document["extensions"]


def test_probes_say_what_clients_read(client: FlaskClient) -> None:
    assert client.get("/v2/health/live").get_json() == {"live": True}
    assert client.get("/v2/health/ready").get_json() == {"ready": True}


def test_without_a_model_it_is_alive_and_not_ready(make_app: Make) -> None:
    client = make_app(MODELS__EXAMPLE="/nowhere").test_client()
    assert client.get("/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", MODEL, f"{MODEL}/ready", f"{MODEL}/config"):
        assert_error(client.get(path), 503)
    assert_error(infer(client, {"inputs": [one_tensor()]}), 503)
    (listed,) = client.post("/v2/repository/index").get_json()
    assert (listed["name"], listed["state"]) == ("example", "UNAVAILABLE")
    assert "/nowhere" in listed["reason"]
    assert client.post("/v2/repository/index", json={"ready": True}).get_json() == []
    assert client.get("/v2/models/stats").get_json() == {"model_stats": []}


def test_a_worker_that_stops_is_not_ready(packed: Path, make_app: Make) -> None:
    app = make_app(MODEL__PATH=str(packed.parent))
    app.extensions["lantern"].draining = lambda: True
    assert_error(app.test_client().get("/v2/health/ready"), 503)


@pytest.mark.parametrize(
    "path",
    ["/v2/models/other", "/v2/models/other/ready", "/v2/models/example/versions/9", "/v2/nope",
     "/v2/models/example/versions/9/ready", "/v2/models/example/versions/9/stats"],
)  # fmt: skip
def test_what_is_not_there_is_404_in_the_protocols_form(client: FlaskClient, path: str) -> None:
    assert_error(client.get(path), 404)


def test_other_methods_are_refused_in_the_protocols_form(client: FlaskClient) -> None:
    response = client.get(f"{MODEL}/infer")
    assert_error(response, 405)
    assert "POST" in response.headers["Allow"]


@pytest.fixture
def canary(versions: Path, make_app: Make) -> FlaskClient:
    """A client of versions 1 and 2, the latter a canary that no routing key falls to."""
    write_release(versions, Release("1", "2", "canary", 0.0))
    return make_app(MODEL__PATH=str(versions)).test_client()


def test_a_path_may_pin_a_version_that_is_loaded(canary: FlaskClient) -> None:
    sent = {"inputs": [one_tensor()]}
    stable = infer(canary, sent).get_json()
    assert stable["model_version"] == "1"
    pinned = infer(canary, sent, f"{MODEL}/versions/2").get_json()
    assert pinned["model_version"] == "2"
    assert pinned["outputs"][0]["data"] != stable["outputs"][0]["data"]
    assert infer(canary, sent, X_Model_Version="2").get_json()["model_version"] == "2"
    document = assert_error(infer(canary, sent, f"{MODEL}/versions/3"), 404)
    assert "loaded: 1, 2" in document["error"]
    assert canary.get(MODEL).get_json()["versions"] == ["1", "2"]
    index = canary.post("/v2/repository/index").get_json()
    assert [(each["version"], each["state"]) for each in index] == [("1", "READY"), ("2", "READY")]
    stats = canary.get(f"{MODEL}/stats").get_json()["model_stats"]
    assert [each["version"] for each in stats] == ["1", "2"]


def test_a_routing_key_stays_on_one_side_of_a_canary(versions: Path, make_app: Make) -> None:
    write_release(versions, Release("1", "2", "canary", 0.5))
    client = make_app(MODEL__PATH=str(versions)).test_client()
    answered = {
        key: {
            infer(client, {"inputs": [one_tensor()]}, X_Routing_Key=key).get_json()["model_version"]
            for _ in range(2)
        }
        for key in map(str, range(20))
    }
    assert all(len(each) == 1 for each in answered.values())
    assert set.union(*answered.values()) == {"1", "2"}


def test_a_shadow_gets_the_rows(versions: Path, make_app: Make) -> None:
    write_release(versions, Release("1", "2", "shadow"))
    app = make_app(MODEL__PATH=str(versions))
    client = app.test_client()
    assert infer(client, {"inputs": [one_tensor()]}).status_code == 200
    assert app.extensions["lantern"].shadow.wait(30)
    counted = samples(client.get("/metrics").get_data(as_text=True))
    compared = {
        labels: n for (name, labels), n in counted.items() if name == "lantern_shadow_rows_total"
    }
    assert sum(compared.values()) == len(ROWS)


def test_requests_are_logged_and_counted(packed: Path, make_app: Make, log_lines: Lines) -> None:
    client = make_app(MODEL__PATH=str(packed.parent)).test_client()
    outside = one_tensor([[200.0, 1.0, 1.0], [30.0, 1.0, 1.0]])
    response = infer(client, {"inputs": [outside]})
    assert response.headers["X-Feature-Warnings"] == "age"
    assert_error(infer(client, {"inputs": []}), 400)
    served, refused = [line for line in log_lines() if line["logger"] == "lantern.request"]
    assert (served["path"], served["rows"], served["model"]) == (f"{MODEL}/infer", 2, "example")
    assert (refused["status"], refused["rows"]) == (400, None)
    counted = samples(client.get("/metrics").get_data(as_text=True))
    version = (("model", "example"), ("version", "1"))
    assert counted[("lantern_predicted_rows_total", version)] == 2
    assert counted[("lantern_features_out_of_range_total", (("feature", "age"), *version))] == 1
    route = (("method", "POST"), ("route", "/v2/models/<name>/infer"), ("status", "200"))
    assert counted[("lantern_http_requests_total", route)] == 1

    (stats,) = client.get(f"{MODEL}/versions/1/stats").get_json()["model_stats"]
    assert (stats["inference_count"], stats["execution_count"]) == (2, 1)
    assert stats["last_inference"] > 1_700_000_000_000
    parts = stats["inference_stats"]
    assert (parts["success"]["count"], parts["fail"]["count"]) == (1, 1)
    stages = ("compute_input", "compute_infer", "compute_output")
    assert all(parts[stage]["ns"] > 0 for stage in stages)
    assert parts["success"]["ns"] >= sum(parts[stage]["ns"] for stage in stages) - len(stages)
    assert client.get("/v2/models/stats").get_json()["model_stats"] == [stats]


def test_keys_need_the_scopes_of_the_native_api(
    packed: Path, make_app: Make, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    predict, metrics = (create_key(keys, scope, scopes=[scope])[1] for scope in (PREDICT, METRICS))
    settings = {"ACCESS__AUTH": "keys", "ACCESS__KEYS_FILE": str(keys)}
    client = make_app(MODEL__PATH=str(packed.parent), **settings).test_client()
    assert client.get("/v2/health/ready").status_code == 200
    needs = {"/v2": None, MODEL: predict, f"{MODEL}/ready": predict, f"{MODEL}/config": predict,
             f"{MODEL}/stats": metrics, "/v2/models/stats": metrics}  # fmt: skip
    for path, need in needs.items():
        assert_error(client.get(path), 401)
        for key in (predict, metrics):
            status = client.get(path, headers={"X-API-Key": key}).status_code
            assert status == (200 if need in (None, key) else 403), path
    assert_error(infer(client, {"inputs": [one_tensor()]}), 401)
    assert_error(infer(client, {"inputs": [one_tensor()]}, X_API_Key=metrics), 403)
    assert infer(client, {"inputs": [one_tensor()]}, X_API_Key=predict).status_code == 200


def test_an_overdue_request_is_refused_before_any_work(client: FlaskClient) -> None:
    from app.worker.contract import OVERDUE

    response = client.post(f"{MODEL}/infer", data=b"", environ_overrides={OVERDUE: 0.7})
    assert "Server overloaded" in assert_error(response, 503)["error"]
    assert response.headers["Retry-After"] == "1"


def test_the_example_of_the_documentation_is_answered_as_it_says(app: Flask) -> None:
    page = (ROOT / "docs" / "protocols.md").read_text()
    [command] = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    [expected] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    words = shlex.split(command)
    path = words[words.index("-s") + 1].removeprefix("http://127.0.0.1:8000")
    body = words[words.index("-d") + 1]
    response = app.test_client().post(path, data=body, content_type="application/json")
    assert response.get_json() | {"id": ""} == json.loads(expected) | {"id": ""}


def test_torch_answers_the_same(packed: Path, make_app: Make, client: FlaskClient) -> None:
    torch = make_app(MODEL__PATH=str(packed.parent), MODEL__RUNTIME="torch").test_client()
    assert torch.get(MODEL).get_json()["platform"] == "pytorch_libtorch"
    data = np.array(ROWS, dtype="<f4").tobytes()
    tensor = {key: value for key, value in one_tensor().items() if key != "data"}
    tensor["parameters"] = {"binary_data_size": len(data)}
    text = json.dumps({"inputs": [tensor]}).encode()
    header = {"Inference_Header_Content_Length": str(len(text))}
    found, expected = (outputs(infer(each, text + data, **header)) for each in (torch, client))
    assert found["label"] == expected["label"]
    assert np.allclose(found["probabilities"], expected["probabilities"], atol=1e-6)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)
_DATATYPES = st.sampled_from(["FP32", "FP64", "INT8", "BOOL", "BYTES", "BF16", "FP31"])
_TENSOR = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["features", *NAMES]) | st.text(max_size=4),
        "shape": st.lists(st.integers(-1, 4) | st.integers(), max_size=3),
        "datatype": _DATATYPES,
    },
    optional={
        "data": st.lists(st.integers(0, 9), max_size=6) | _JSON,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 30)})
        | _JSON,
    },
)
_DOCUMENT = st.fixed_dictionaries(
    {"inputs": st.lists(_TENSOR, max_size=3) | _JSON},
    optional={
        "id": _JSON,
        "parameters": st.just({"binary_data_output": True}) | _JSON,
        "outputs": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["probabilities", "label", "x"])},
                optional={"parameters": st.just({"classification": 2}) | _JSON},
            ),
            max_size=2,
        )
        | _JSON,
    },
)
_PATHS = st.sampled_from(
    [f"{MODEL}/infer", f"{MODEL}/versions/1/infer", "/v2/repository/index", "/v2/models/infer"]
)


@given(
    path=_PATHS,
    text=st.one_of(_DOCUMENT, _DOCUMENT, _JSON).map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=60),
    binary=st.binary(max_size=30),
    json_bytes=st.sampled_from(["right", "none", "0", "5", "-1", "x"]),
    encoding=st.sampled_from(["", "", "gzip", "deflate", "identity", "br"]),
)
def test_any_json_and_any_bytes_are_answered_or_refused_with_a_sentence(
    client: FlaskClient, *, path: str, text: bytes, binary: bytes, json_bytes: str, encoding: str
) -> None:
    headers = {"Content-Encoding": encoding} if encoding else {}
    if json_bytes != "none":
        headers[JSON_BYTES] = str(len(text)) if json_bytes == "right" else json_bytes
        text += binary
    response = client.post(path, data=text, headers=headers)
    if response.status_code != 200:
        assert 400 <= response.status_code < 500
        assert_error(response, response.status_code)
