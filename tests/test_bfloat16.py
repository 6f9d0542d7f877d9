"""Models that take and return bfloat16: packed, checked, and asked in binary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from numpy.typing import NDArray
from onnx import TensorProto, helper, load
from werkzeug.test import TestResponse

from app import create_app
from app.cli.lantern import lantern
from app.model import bfloat16
from app.model.errors import BundleError
from app.model.features import Feature
from app.packing.description import ModelDescription
from app.packing.file import pack_file
from app.packing.statement import Statement
from app.registry.diff import diff_versions
from app.registry.loading import ModelSource, load_model
from app.registry.verification import verify
from app.settings import load_settings
from tests.tensor_graphs import BFLOAT16_WEIGHT, in_bfloat16, pack_tensors, write_graph

NARROW, WIDE = TensorProto.BFLOAT16, TensorProto.FLOAT
EXAMPLE = {
    "x": np.array([[0.1, 1.0, -3.3], [2.0, 0.3, 7.7]], np.float32),
    "state": np.array([[0.7, 1.0], [0, -1]], np.float32),
}
"""Numbers of which most are none of bfloat16."""
Floats = NDArray[np.float32]
node = helper.make_node


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of a model of tensors in bfloat16."""
    scratch = tmp_path_factory.mktemp("tensors")
    np.savez(scratch / "example.npz", **EXAMPLE)
    for version in ("1", "2"):
        graph = in_bfloat16(scratch / "model.onnx")
        pack_tensors(graph, scratch / "any" / version, scratch / "example.npz")
    return scratch / "any"


@pytest.fixture(scope="module")
def featured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier whose two features, probabilities and another output are bfloat16."""
    scratch = tmp_path_factory.mktemp("features")
    graph = write_graph(
        scratch / "model.onnx",
        [
            node("Cast", ["x"], ["wide"], to=WIDE),
            node("Softmax", ["wide"], ["p"]),
            node("Cast", ["p"], ["narrow p"], to=NARROW),
            node("Identity", ["x"], ["same x"]),
        ],
        [("x", NARROW, ["n", 2])],
        [("narrow p", NARROW, ["n", 2]), ("same x", NARROW, ["n", 2])],
    )
    rows = np.random.default_rng(0).normal(0, 1, (40, 2)).round(3)
    lines = ["a,b", *(",".join(map(str, row)) for row in rows.tolist()), ""]
    (scratch / "rows.csv").write_text("\n".join(lines))
    stated = Statement("classification", names=("no", "yes"), roles={"narrow p": "probabilities"})
    pack_file(graph, scratch / "any" / "1", samples=scratch / "rows.csv", statement=stated)
    return scratch / "any"


@pytest.fixture(params=["true", "false"], ids=["fast path", "Flask"])
def ways(request: pytest.FixtureRequest) -> str:
    way: str = request.param
    return way


def serve(directory: Path, fast_path: str = "true") -> FlaskClient:
    settings = {"LANTERN_MODEL__PATH": str(directory), "LANTERN_SERVER__FAST_PATH": fast_path}
    return create_app(load_settings(settings)).test_client()


def infer(client: FlaskClient, document: dict[str, Any], binary: bytes = b"") -> TestResponse:
    head = json.dumps(document).encode()
    length = {"Inference-Header-Content-Length": str(len(head))} if binary else {}
    return client.post("/v2/models/any/infer", data=head + binary, headers=length)


def ask(client: FlaskClient, **inputs: Floats) -> dict[str, Floats]:
    """Send arrays as BF16 in binary, and return the floats of the answer."""
    sent = {name: bfloat16.to_bits(array).tobytes() for name, array in inputs.items()}
    document = {
        "parameters": {"binary_data_output": True},
        "inputs": [
            {"name": name, "datatype": "BF16", "shape": list(array.shape)}
            | {"parameters": {"binary_data_size": 2 * array.size}}
            for name, array in inputs.items()
        ],
    }
    response = infer(client, document, b"".join(sent.values()))
    assert response.status_code == 200, response.get_json()
    at = int(response.headers["Inference-Header-Content-Length"])
    found = {}
    for output in json.loads(response.data[:at])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        data = response.data[at : at + size]
        at += size
        if output["datatype"] == "BF16":
            array = bfloat16.from_bits(np.frombuffer(data, "<u2"))
        elif output["datatype"] == "FP32":
            array = np.frombuffer(data, "<f4")
        else:
            continue
        found[output["name"]] = array.reshape(output["shape"])
    return found


def refused(response: TestResponse) -> str:
    assert response.status_code == 400
    said: str = response.get_json()["error"]
    return said


def test_an_example_in_an_array_that_numpy_does_not_know_is_refused(tmp_path: Path) -> None:
    import ml_dtypes

    for name, array in EXAMPLE.items():
        np.savez(tmp_path / "x.npz", **(EXAMPLE | {name: array.astype(ml_dtypes.bfloat16)}))
        with pytest.raises(BundleError, match="Save an array of bfloat16 as float32"):
            pack_tensors(
                in_bfloat16(tmp_path / "m.onnx"), tmp_path / "any" / "1", tmp_path / "x.npz"
            )


def test_the_signature_says_bf16_and_the_graph_has_float32(tensors: Path) -> None:
    manifest = json.loads((tensors / "1" / "manifest.json").read_text())
    said = {each["datatype"] for each in (*manifest["inputs"], *manifest["outputs"])}
    assert said == {"BF16"}
    graph = load(tensors / "1" / "model.onnx").graph
    border = (*graph.input, *graph.output)
    assert {each.type.tensor_type.elem_type for each in border} == {WIDE}
    assert manifest["tolerances"]["y"] == {"relative": 0.08, "absolute": 0.008}


def test_golden_data_are_what_callers_can_send(tensors: Path) -> None:
    golden = load_model(ModelSource(tensors / "1")).golden()
    for name, array in EXAMPLE.items():
        np.testing.assert_array_equal(golden.inputs[name], bfloat16.rounded(array))
    for array in golden.outputs.values():
        np.testing.assert_array_equal(array, bfloat16.rounded(array))


def test_it_is_verified_compared_and_shown(tensors: Path) -> None:
    report = verify(tensors, "1")
    assert report.passed, report.problems
    diff = diff_versions(tensors, "1", "2")
    assert (diff.breaking, diff.harmless, diff.incomparable) == ((), (), "")
    assert diff.agreement is not None
    assert (diff.agreement.agreed, diff.agreement.largest_difference) == (1.0, 0.0)
    shown = CliRunner().invoke(
        lantern, ["model", "show", "1"], env={"LANTERN_MODEL__PATH": str(tensors)}
    )
    assert "BF16" in shown.output


def test_binary_tensors_are_exact_both_ways(tensors: Path, ways: str) -> None:
    client = serve(tensors, ways)
    metadata = client.get("/v2/models/any").get_json()
    described = {each["name"]: each["datatype"] for each in metadata["inputs"]}
    assert described == {"x": "BF16", "state": "BF16"}
    config = client.get("/v2/models/any/config").get_json()
    assert {each["data_type"] for each in config["output"]} == {"TYPE_BF16"}
    # Every finite value of bfloat16 there is.
    every = bfloat16.from_bits(np.arange(2**16, dtype=np.uint16))
    every = every[np.isfinite(every)]
    x = np.zeros((len(every) // 3 + 1, 3), np.float32)
    x.reshape(-1)[: len(every)] = every
    parts = [
        ask(client, x=part, state=np.zeros((len(part), 2), np.float32))
        for part in np.array_split(x, 3)
    ]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert found["same x"].tobytes() == x.tobytes()
    with np.errstate(over="ignore", invalid="ignore"):
        product = x @ np.array(BFLOAT16_WEIGHT, np.float32)
    fits = np.abs(product) < 1e38
    np.testing.assert_allclose(found["y"][fits], product[fits], rtol=2**-8, atol=1e-37)


def test_the_state_goes_round_through_the_caller(tensors: Path) -> None:
    client = serve(tensors)
    x, state = np.array([[1, 0, 0]], np.float32), np.array([[0, 0]], np.float32)
    for _ in range(3):
        state = ask(client, x=x, state=state)["next state"]
    assert state.tolist() == [[3.0, -1.5]]


def test_json_takes_none_and_returns_none(tensors: Path, ways: str) -> None:
    client = serve(tensors, ways)
    shapes = {"x": [1, 3], "state": [1, 2]}
    sent = [
        {"name": name, "datatype": "BF16", "shape": shape, "data": [0] * shape[1]}
        for name, shape in shapes.items()
    ]
    said = refused(infer(client, {"inputs": sent, "parameters": {"binary_data_output": True}}))
    assert "can't hold BF16, which is sent as a binary tensor" in said
    binary = [
        {"name": name, "datatype": "BF16", "shape": shape, "parameters": {"binary_data_size": size}}
        for (name, shape), size in zip(shapes.items(), (6, 4), strict=True)
    ]
    for outputs in ([], [{"name": "y"}]):
        said = refused(infer(client, {"inputs": binary, "outputs": outputs}, b"\0" * 10))
        assert "is BF16; request it with binary_data" in said


def test_another_datatype_in_its_place_is_refused(tensors: Path) -> None:
    sent = [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [0, 0, 0]}]
    sent.append({"name": "state", "datatype": "FP32", "shape": [1, 2], "data": [0, 0]})
    document = {"inputs": sent, "parameters": {"binary_data_output": True}}
    assert "must be BF16 for 'x', not FP32" in refused(infer(serve(tensors), document))


def test_the_documentation_shows_no_request_that_json_cannot_hold(tensors: Path) -> None:
    document = json.dumps(serve(tensors).get("/openapi.json").get_json())
    assert '"datatype": "BF16"' not in document


def test_features_in_bf16_are_asked_as_any_others(featured: Path, ways: str) -> None:
    client = serve(featured, ways)
    sample = {"a": 0.5, "b": -0.1}
    answer = client.post("/predict", json={"features": sample}).get_json()
    logits = bfloat16.rounded(np.array([[0.5, -0.1]], np.float32))
    powers = np.exp(logits)
    expected = bfloat16.rounded(powers / powers.sum())
    found = ask(client, x=logits)
    np.testing.assert_array_equal(found["probabilities"], expected)
    np.testing.assert_array_equal(found["same x"], logits)
    np.testing.assert_allclose([*answer["probabilities"].values()], expected[0], rtol=1e-6)
    columns = [
        {"name": name, "datatype": "FP32", "shape": [1], "data": [value]}
        for name, value in sample.items()
    ]
    wanted = [{"name": "probabilities"}, {"name": "label"}]
    outputs = infer(client, {"inputs": columns, "outputs": wanted}).get_json()["outputs"]
    np.testing.assert_array_equal(np.float32(outputs[0]["data"]), expected[0])
    assert outputs[1]["data"] == ["no"]


def test_probabilities_in_bf16_sum_to_1_as_far_as_they_can(featured: Path) -> None:
    manifest = json.loads((featured / "1" / "manifest.json").read_text())
    outputs = {each["name"]: each["datatype"] for each in manifest["outputs"]}
    assert outputs == {"probabilities": "FP32", "same x": "BF16"}
    golden = load_model(ModelSource(featured / "1")).golden()
    off = np.abs(golden.outputs["probabilities"].sum(axis=1) - 1)
    assert 1e-4 < off.max() < 4e-3
    assert verify(featured, "1").passed


def test_a_graph_of_another_datatype_than_the_manifest_says_is_refused(
    tensors: Path, tmp_path: Path
) -> None:
    wide = write_graph(
        tmp_path / "model.onnx",
        [node("Cast", ["x"], ["y"], to=NARROW)],
        [("x", TensorProto.DOUBLE, [2])],
        [("y", NARROW, [2])],
    )
    out = tmp_path / "any" / "1"
    pack_file(wide, out, statement=Statement(task="tensors"))
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["inputs"][0]["datatype"] = "BF16"
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"BF16 of shape \[2\] \(held as FP32, as packing has it"):
        load_model(ModelSource(out))


def test_a_description_of_features_is_placed_in_a_tensor_of_bf16(tmp_path: Path) -> None:
    graph = write_graph(
        tmp_path / "model.onnx",
        [
            node("Cast", ["x"], ["wide"], to=WIDE),
            node("Constant", [], ["ones"], value=helper.make_tensor("ones", WIDE, [2, 1], [1, 1])),
            node("MatMul", ["wide", "ones"], ["sum"]),
            node("Cast", ["sum"], ["y"], to=NARROW),
        ],
        [("x", NARROW, ["n", 2])],
        [("y", NARROW, ["n", 1])],
    )
    (tmp_path / "rows.csv").write_text("size,plan\n1.1,pro\n,free\n200,pro\n")
    size = Feature("size", nullable=True)
    plan = Feature("plan", kind="category", categories=("free", "pro"))
    description = ModelDescription((size, plan), medians={"size": 7.7})
    packed = pack_file(
        graph,
        tmp_path / "any" / "1",
        samples=tmp_path / "rows.csv",
        description=description,
        statement=Statement(task="regression"),
    )
    assert packed.manifest.tolerances["values"].relative == 0.08
    client = serve(tmp_path / "any")
    for sample, total in (
        ({"size": 3, "plan": "pro"}, 4),
        ({"size": None, "plan": "free"}, 7.6875),
    ):
        found = client.post("/predict", json={"features": sample}).get_json()
        assert found["prediction"] == total
