"""A model without features over HTTP: its graph's own tensors, by the Open Inference Protocol."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from werkzeug.test import TestResponse

from app import create_app
from app.model.signature import DTYPES, TensorSpec
from app.registry.release import Release, write_release
from app.settings import load_settings
from tests.identity_graphs import write_identity
from tests.telemetry.test_metrics import samples
from tests.tensor_graphs import EVERY_KIND, pack_every_kind, pack_tensors, write_graph

MODEL = "/v2/models/any"
DATATYPES = {"U": "BYTES", "i8": "INT64", "b1": "BOOL", "f2": "FP16", "f4": "FP32", "f8": "FP64"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one version of a model of many kinds of tensors."""
    scratch = tmp_path_factory.mktemp("tensors")
    pack_every_kind(scratch, scratch / "any" / "1")
    return scratch / "any"


@pytest.fixture(scope="module", params=["true", "false"], ids=["fast path", "Flask"])
def client(request: pytest.FixtureRequest, directory: Path) -> FlaskClient:
    settings = {"LANTERN_MODEL__PATH": str(directory), "LANTERN_SERVER__FAST_PATH": request.param}
    return create_app(load_settings(settings)).test_client()


def tensor(name: str, value: Any, **more: Any) -> dict[str, Any]:
    array = np.asarray(value)
    datatype = DATATYPES.get(array.dtype.kind) or DATATYPES[array.dtype.str[1:]]
    data = array.reshape(-1).tolist()
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": data} | more


def inputs(**changed: Any) -> list[dict[str, Any]]:
    return [tensor(name, value) for name, value in (EVERY_KIND | changed).items() if name != "half"]


def infer(client: FlaskClient, sent: list[dict[str, Any]], **members: Any) -> TestResponse:
    """Send tensors, and the FP16 one, which JSON may hold as well."""
    half = tensor("half", EVERY_KIND["half"])
    document = {"inputs": [*sent, half]} | members
    return client.post(f"{MODEL}/infer", data=json.dumps(document))


def refused(response: TestResponse, status: int) -> str:
    document = response.get_json()
    assert response.status_code == status, document
    said: str = document.get("error") or document["detail"]
    return said


def test_metadata_are_the_graphs_own_tensors(client: FlaskClient) -> None:
    document = client.get(MODEL).get_json()
    described = {each["name"]: (each["datatype"], each["shape"]) for each in document["inputs"]}
    assert described == {
        "text": ("BYTES", [-1]),
        "numbers": ("INT64", [-1, 2]),
        "flag": ("BOOL", []),
        "row": ("FP32", [1, -1]),
        "half": ("FP16", [2]),
        "state": ("FP64", [2]),
    }
    outputs = {each["name"]: (each["datatype"], each["shape"]) for each in document["outputs"]}
    assert outputs["total"] == ("INT64", [])
    assert outputs["places"] == ("INT64", [2, -1])  # which the graph doesn't say


def test_the_configuration_has_no_rows(client: FlaskClient) -> None:
    config = client.get(f"{MODEL}/config").get_json()
    assert config["max_batch_size"] == 0
    dims = {each["name"]: each["dims"] for each in config["input"]}
    assert dims["numbers"] == [-1, 2]


def test_tensors_of_every_kind_are_answered(client: FlaskClient) -> None:
    response = infer(client, inputs(row=np.array([[0, 3, 4]], dtype=np.float32)))
    assert response.status_code == 200, response.get_json()
    found = {each["name"]: (each["shape"], each["data"]) for each in response.get_json()["outputs"]}
    assert found == {
        "same text": ([2], ["zoë", ""]),
        "total": ([], [2]),
        "not flag": ([], [False]),
        "squares": ([1, 3], [0, 9, 16]),
        "places": ([2, 2], [0, 0, 1, 2]),
        "same half": ([2], [0.5, 65504]),
        "next state": ([2], [2.0, 0.2]),
    }


def test_the_state_goes_round_through_the_caller(client: FlaskClient) -> None:
    state = [1.0, 0.5]
    for _ in range(3):
        answer = infer(client, inputs(state=np.array(state)), outputs=[{"name": "next state"}])
        (output,) = answer.get_json()["outputs"]
        state = output["data"]
    assert state == [8.0, 4.0]


def test_an_answer_in_binary_is_the_same(client: FlaskClient) -> None:
    text, state = b"\x02\x00\x00\x00ab\x00\x00\x00\x00", np.array([1.0, 2.0]).tobytes()
    sent = [each for each in inputs() if each["name"] not in ("text", "state")]
    for name, shape, datatype, data in (
        ("text", [2], "BYTES", text),
        ("state", [2], "FP64", state),
        ("half", [2], "FP16", EVERY_KIND["half"].tobytes()),
    ):
        parameters = {"binary_data_size": len(data)}
        sent.append({"name": name, "shape": shape, "datatype": datatype, "parameters": parameters})
    wanted = ("same text", "next state", "same half")
    document = {
        "inputs": sent,
        "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in wanted],
    }
    head = json.dumps(document).encode()
    response = client.post(
        f"{MODEL}/infer",
        data=head + text + state + EVERY_KIND["half"].tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert response.status_code == 200, response.get_json()
    begin = int(response.headers["Inference-Header-Content-Length"])
    assert response.data[begin:] == (
        text + np.array([2.0, 4.0]).tobytes() + EVERY_KIND["half"].tobytes()
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"numbers": np.array([[1.0, 2.0]])}, "must be INT64 for 'numbers', not FP64"),
        ({"numbers": np.array([[1, 2, 3]])}, r"must be [-1, 2] for 'numbers', not [1, 3]"),
        ({"numbers": np.array([1, 2])}, r"must be [-1, 2] for 'numbers', not [2]"),
        ({"row": np.ones((2, 1), dtype=np.float32)}, r"must be [1, -1] for 'row', not [2, 1]"),
        ({"flag": np.array([True])}, r"must be [] for 'flag', not [1]"),
        ({"other": np.array([True])}, "is not an input of this model"),
    ],
)
def test_other_tensors_are_refused_by_their_place(
    client: FlaskClient, change: dict[str, Any], said: str
) -> None:
    assert said in refused(infer(client, inputs(**change)), 400)


def test_an_input_that_is_missing_is_named(client: FlaskClient) -> None:
    sent = [each for each in inputs() if each["name"] != "flag"]
    assert "have no 'flag'" in refused(infer(client, sent), 400)


def test_a_string_that_is_no_text_is_refused(client: FlaskClient) -> None:
    sent = [each for each in inputs() if each["name"] != "text"]
    data = b"\x01\x00\x00\x00\xff"
    sent.append(
        {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}
    )
    sent.append(tensor("half", EVERY_KIND["half"]))
    head = json.dumps({"inputs": sent}).encode()
    response = client.post(
        f"{MODEL}/infer",
        data=head + data,
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert "not UTF-8" in refused(response, 400)


def test_outputs_that_are_not_there_are_refused(client: FlaskClient) -> None:
    response = infer(client, inputs(), outputs=[{"name": "probabilities"}])
    assert "is not an output of this model" in refused(response, 400)
    classes = {"name": "squares", "parameters": {"classification": 2}}
    assert "a classifier" in refused(infer(client, inputs(), outputs=[classes]), 400)


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/models/any/predict"])
def test_predict_names_the_route_of_the_protocol(client: FlaskClient, path: str) -> None:
    response = client.post(path, json={"features": {}})
    assert "POST /v2/models/any/infer" in refused(response, 422)


def test_info_page_and_document_describe_the_tensors(client: FlaskClient) -> None:
    info = client.get("/model/info").get_json()
    assert (info["task"], info["num_features"], info["classes"]) == ("tensors", 0, [])
    assert info["inputs"][1] == {"name": "numbers", "datatype": "INT64", "shape": [-1, 2]}
    page = client.get("/", headers={"Accept": "text/html"}).get_data(as_text=True)
    assert "POST /v2/models/any/infer" in page
    assert "numbers: INT64 [-1, 2]" in page
    document = client.get("/openapi.json").get_json()
    example = document["paths"]["/v2/models/{name}/infer"]["post"]["requestBody"]["content"][
        "application/json"
    ]["example"]
    assert client.post(f"{MODEL}/infer", json=example).status_code == 200


def test_runs_are_counted_as_rows(make_app: Callable[..., Flask], directory: Path) -> None:
    client = make_app(MODEL__PATH=str(directory)).test_client()
    assert infer(client, inputs()).status_code == 200
    (statistics,) = client.get(f"{MODEL}/stats").get_json()["model_stats"]
    assert statistics["inference_count"] == 1
    counted = samples(client.get("/metrics").get_data(as_text=True))
    rows = {key: value for key, value in counted.items() if "predictions_total" in str(key)}
    assert list(rows.values()) == [1], counted


def test_outputs_are_bounded_once_their_size_is_known(
    make_app: Callable[..., Flask], directory: Path
) -> None:
    client = make_app(MODEL__PATH=str(directory), LIMITS__MAX_ANSWER_VALUES="20").test_client()
    assert infer(client, inputs()).status_code == 200
    sent = inputs(row=np.ones((1, 30), dtype=np.float32))
    assert "limits.max_answer_values" in refused(infer(client, sent), 413)
    assert infer(client, sent, outputs=[{"name": "total"}]).status_code == 200
    sent = inputs(text=np.array(["x" * 200, ""]))
    assert "limits.max_answer_values" in refused(infer(client, sent), 413)


@pytest.fixture
def gather(tmp_path: Path, make_app: Callable[..., Flask]) -> Iterator[FlaskClient]:
    """A client of a model that looks words up in a vocabulary of three."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [3, 1], [1.0, 2.0, 3.0])
    nodes = [
        helper.make_node("Constant", [], ["table"], value=table),
        helper.make_node("Gather", ["table", "ids"], ["found"]),
    ]
    graph = write_graph(
        tmp_path / "words.onnx",
        nodes,
        [("ids", TensorProto.INT64, ["n"])],
        [("found", TensorProto.FLOAT, ["n", 1])],
    )
    (tmp_path / "example.json").write_text('{"ids": [0, 2]}')
    pack_tensors(graph, tmp_path / "words" / "1", tmp_path / "example.json")
    return make_app(MODEL__PATH=str(tmp_path / "words")).test_client()


def test_values_that_the_network_has_no_answer_to_are_the_callers_fault(
    gather: FlaskClient,
) -> None:
    body = {"inputs": [tensor("ids", [0, 99])]}
    response = gather.post("/v2/models/words/infer", json=body)
    assert "can't be run on these inputs" in refused(response, 400)
    response = gather.post("/v2/models/words/infer", json={"inputs": [tensor("ids", [1])]})
    assert response.get_json()["outputs"][0]["data"] == [2.0]


def test_a_shadow_is_left_out_and_a_canary_answers(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    for version in ("1", "2"):
        pack_every_kind(tmp_path, tmp_path / "any" / version)
    for mode, traffic in (("shadow", 0.0), ("canary", 1.0)):
        write_release(tmp_path / "any", Release("1", "2", mode, traffic))
        client = make_app(MODEL__PATH=str(tmp_path / "any")).test_client()
        answer = infer(client, inputs()).get_json()
        release = client.get("/model/info").get_json()["release"]
        if mode == "canary":
            assert (answer["model_version"], release["fault"]) == ("2", None)
        else:
            assert answer["model_version"] == "1"
            assert "A shadow compares the answers to samples" in release["fault"]


def _values(datatype: str) -> st.SearchStrategy[Any]:
    """Values of a datatype, with NaN and infinities where it has them."""
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        return st.text(max_size=6)
    if datatype == "BOOL":
        return st.booleans()
    if dtype.kind == "f":
        return st.floats(width=8 * dtype.itemsize)  # type: ignore[arg-type]
    bounds = np.iinfo(dtype)
    return st.integers(int(bounds.min), int(bounds.max))


@st.composite
def _tensors(draw: st.DrawFn) -> list[tuple[TensorSpec, Any]]:
    """Up to three tensors of any datatypes and shapes, some of whose dimensions vary, with an
    array for each.
    """
    drawn = []
    for index in range(draw(st.integers(1, 3))):
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        varies = draw(st.tuples(*[st.booleans()] * len(shape)))
        datatype = draw(st.sampled_from([each for each in DTYPES if each != "BF16"]))
        spec = TensorSpec(
            f"t{index}",
            datatype,
            tuple(-1 if free else size for free, size in zip(varies, shape, strict=True)),
        )
        size = math.prod(shape)
        values = draw(st.lists(_values(datatype), min_size=size, max_size=size))
        array = np.empty(size, dtype=DTYPES[datatype])
        array[:] = values
        drawn.append((spec, array.reshape(shape)))
    return drawn


def _in_binary(array: Any) -> bytes:
    if array.dtype.kind != "O":
        data: bytes = array.tobytes()
        return data
    texts = [value.encode() for value in array.reshape(-1)]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _in_json(array: Any) -> list[Any]:
    flat = array.reshape(-1).tolist()
    return [None if isinstance(v, float) and not math.isfinite(v) else v for v in flat]


@settings(max_examples=30)
@given(tensors=_tensors())
def test_any_tensors_go_there_and_come_back(tensors: list[tuple[TensorSpec, Any]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "any"
        write_identity(model / "1", [spec for spec, _ in tensors])
        client = create_app(load_settings({"LANTERN_MODEL__PATH": str(model)})).test_client()
        _go_and_come_back_in_json(client, tensors)
        _go_and_come_back_in_binary(client, tensors)


def _described(tensors: list[tuple[TensorSpec, Any]]) -> list[dict[str, Any]]:
    return [
        {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape)}
        for spec, array in tensors
    ]


def _go_and_come_back_in_json(client: FlaskClient, tensors: list[tuple[TensorSpec, Any]]) -> None:
    sent = [
        each | {"data": _in_json(array)}
        for each, (_, array) in zip(_described(tensors), tensors, strict=True)
    ]
    response = client.post(f"{MODEL}/infer", json={"inputs": sent})
    assert response.status_code == 200, response.get_json()
    for output, (_, array) in zip(response.get_json()["outputs"], tensors, strict=True):
        assert output["shape"] == list(array.shape)
        data = output["data"]
        if array.dtype.kind == "f":
            data = [None if each is None else float(array.dtype.type(each)) for each in data]
        assert data == _in_json(array)


def _go_and_come_back_in_binary(client: FlaskClient, tensors: list[tuple[TensorSpec, Any]]) -> None:
    parts = [_in_binary(array) for _, array in tensors]
    sent = [
        each | {"parameters": {"binary_data_size": len(data)}}
        for each, data in zip(_described(tensors), parts, strict=True)
    ]
    head = json.dumps({"inputs": sent, "parameters": {"binary_data_output": True}}).encode()
    response = client.post(
        f"{MODEL}/infer",
        data=head + b"".join(parts),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert response.status_code == 200, response.get_json()
    begin = int(response.headers["Inference-Header-Content-Length"])
    returned = [each | {"name": f"same {each['name']}"} for each in sent]
    assert json.loads(response.data[:begin])["outputs"] == returned
    assert response.data[begin:] == b"".join(parts)
