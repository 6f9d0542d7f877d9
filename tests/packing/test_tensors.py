"""Packing a graph with the tensors that it has: from one example to a bundle that verifies."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from app.model.errors import BundleError
from app.model.isolation import ProcessLimits
from app.model.manifest_file import read_manifest
from app.packing.file import pack_file
from app.packing.statement import Statement
from app.registry.loading import ModelSource, load_model
from app.registry.verification import verify
from tests.tensor_graphs import EVERY_KIND, every_kind, pack_every_kind, pack_tensors, write_graph
from tests.unbounded import EXAMPLE, write_unbounded

TENSORS = Statement(task="tensors")
FLOATS = ("x", TensorProto.FLOAT, ["n"])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "models" / "any" / "1"


def one_node(path: Path, operator: str, output: tuple[str, int, Any], **attributes: Any) -> Path:
    return write_graph(
        path, [helper.make_node(operator, ["x"], ["y"], **attributes)], [FLOATS], [output]
    )


def refusal(graph: Path, out: Path, example: Any) -> str:
    path = graph.parent / "example.json"
    path.write_text(json.dumps(example))
    with pytest.raises(BundleError) as error:
        pack_tensors(graph, out, example=path)
    assert not out.exists()
    return str(error.value)


def test_a_bundle_states_every_tensor_and_verifies(tmp_path: Path, out: Path) -> None:
    manifest = pack_every_kind(tmp_path, out)
    assert manifest == read_manifest(out / "manifest.json")
    document = json.loads((out / "manifest.json").read_text())
    assert (document["format"], document["task"]) == (2, "tensors")
    assert document["inputs"][3] == {"name": "row", "datatype": "FP32", "shape": [1, -1]}
    assert document["outputs"][4]["shape"] == [2, -1]  # which the graph doesn't say
    assert set(document["tolerances"]) == {"squares", "same half", "next state"}
    assert set(document["files"]) == {"model.onnx", "golden.npz"}
    report = verify(out.parent, "1")
    assert report.passed, report.problems
    (runtime,) = report.runtimes
    assert (runtime.single_difference, runtime.batch_difference) == (0.0, None)
    assert runtime.latency is not None
    assert runtime.latency.thousand_rows is None


def test_a_model_runs_what_its_signature_says(tmp_path: Path, out: Path) -> None:
    pack_every_kind(tmp_path, out)
    # Neither rows that run together nor a cache are asked of what has no rows.
    model = load_model(ModelSource(out, batch_rows=8, cache_size=8))
    given = EVERY_KIND | {"text": EVERY_KIND["text"].astype(object)}
    outputs = model.run(given)
    assert outputs["same text"].tolist() == ["zoë", ""]
    assert outputs["total"].shape == ()
    assert outputs["next state"].dtype == np.float64


@pytest.mark.parametrize(
    "alter",
    [
        lambda arrays: arrays.update(output_1=arrays["output_1"] + 1),
        lambda arrays: arrays.update(output_0=np.array(["zoe", ""])),
        lambda arrays: arrays.update(output_3=arrays["output_3"] + np.float32(0.01)),
        lambda arrays: arrays.update(output_6=np.array([np.nan, 0.2])),
    ],
)
def test_another_answer_than_the_golden_one_never_serves(
    tmp_path: Path, out: Path, alter: Any
) -> None:
    pack_every_kind(tmp_path, out)
    rewrite_golden(out, alter)
    with pytest.raises(BundleError, match="differ from those when the model was packed"):
        load_model(ModelSource(out))
    report = verify(out.parent, "1")
    assert any("differ from those" in problem for problem in report.problems)


def rewrite_golden(bundle: Path, alter: Any) -> None:
    """Alter golden arrays, as someone would who also writes their checksum anew."""
    from app.model.bundle import file_sha256

    file = bundle / "golden.npz"
    arrays = dict(np.load(file))
    alter(arrays)
    np.savez(file, **arrays)
    vouch_for(bundle, file_sha256(file), file.stat().st_size)


def vouch_for(bundle: Path, sha256: str, size: int) -> None:
    document = json.loads((bundle / "manifest.json").read_text())
    document["files"]["golden.npz"] = {"sha256": sha256, "size": size}
    (bundle / "manifest.json").write_text(json.dumps(document))


def test_golden_data_that_were_altered_are_not_read(tmp_path: Path, out: Path) -> None:
    pack_every_kind(tmp_path, out)
    file = out / "golden.npz"
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(BundleError, match=r"golden.npz does not match the SHA-256"):
        load_model(ModelSource(out))
    assert any("golden.npz does not match" in each for each in verify(out.parent, "1").problems)


def test_golden_data_of_other_tensors_are_refused(tmp_path: Path, out: Path) -> None:
    pack_every_kind(tmp_path, out)
    rewrite_golden(out, lambda arrays: arrays.update(input_1=np.ones((2, 3), dtype=np.int64)))
    with pytest.raises(BundleError, match="input_1 must be INT64 of shape"):
        load_model(ModelSource(out))
    rewrite_golden(out, lambda arrays: arrays.pop("input_1"))
    with pytest.raises(BundleError, match="must hold"):
        load_model(ModelSource(out))


def test_an_example_may_be_json(tmp_path: Path, out: Path) -> None:
    example = {name: value.tolist() for name, value in EVERY_KIND.items()}
    (tmp_path / "example.json").write_text(json.dumps(example))
    graph = every_kind(tmp_path / "any.onnx")
    pack_tensors(graph, out, example=tmp_path / "example.json")
    assert verify(out.parent, "1").passed


@pytest.mark.parametrize(
    ("example", "said"),
    [
        ({}, "has no array for 'x'; the model takes x FP32 [-1]"),
        ({"x": [1], "y": [2]}, "has 'y', which is not an input of the model"),
        ({"x": [[1]]}, "has the shape [1, 1]"),
        ({"x": ["1"]}, "no array of x FP32 [-1]"),
        ({"x": [1, [2]]}, "no array of x FP32 [-1]"),
        ({"x": [True]}, "each value must be a number or null"),
        ([1], "must be an object"),
    ],
)
def test_an_example_of_another_form_is_refused_by_its_place(
    tmp_path: Path, out: Path, example: Any, said: str
) -> None:
    graph = one_node(tmp_path / "g.onnx", "Abs", ("y", TensorProto.FLOAT, ["n"]))
    assert said in refusal(graph, out, example)


def test_null_in_an_example_is_nan(tmp_path: Path, out: Path) -> None:
    graph = one_node(tmp_path / "g.onnx", "IsNaN", ("y", TensorProto.BOOL, ["n"]))
    (tmp_path / "example.json").write_text('{"x": [1, null]}')
    pack_tensors(graph, out, example=tmp_path / "example.json")
    model = load_model(ModelSource(out))
    answers = model.run({"x": np.array([np.nan, 1], dtype=np.float32)})
    assert answers["y"].tolist() == [True, False]


def test_integers_beyond_their_datatype_are_refused(tmp_path: Path, out: Path) -> None:
    graph = write_graph(
        tmp_path / "g.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", TensorProto.INT8, ["n"])],
        [("y", TensorProto.INT8, ["n"])],
    )
    assert "out of bounds for int8" in refusal(graph, out, {"x": [300]})
    assert "must be an integer" in refusal(graph, out, {"x": [1.5]})


def test_a_random_graph_is_refused(tmp_path: Path, out: Path) -> None:
    graph = one_node(tmp_path / "g.onnx", "RandomUniformLike", ("y", TensorProto.FLOAT, ["n"]))
    assert "is random" in refusal(graph, out, {"x": [1]})


def test_what_is_no_tensor_is_refused(tmp_path: Path, out: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["n"])
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("SequenceConstruct", ["x"], ["y"])],
            "g",
            [helper.make_tensor_value_info(*FLOATS)],
            [sequence],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    graph = tmp_path / "g.onnx"
    graph.write_bytes(model.SerializeToString())
    assert "the output 'y' is a sequence of 1 te" in refusal(graph, out, {"x": [1]})


def test_a_dimension_that_the_graph_states_and_a_run_contradicts_varies(
    tmp_path: Path, out: Path
) -> None:
    graph = one_node(tmp_path / "g.onnx", "NonZero", ("y", TensorProto.INT64, [1, 7]))
    (tmp_path / "example.json").write_text('{"x": [1, 0, 3]}')
    manifest = pack_tensors(graph, out, example=tmp_path / "example.json")
    assert manifest.outputs[0].shape == (-1, -1)
    assert verify(out.parent, "1").passed


def test_a_loop_without_end_is_ended(tmp_path: Path, out: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes on"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("goes on", TensorProto.BOOL, [])],
    )
    graph = write_graph(
        tmp_path / "g.onnx",
        [
            helper.make_node("Loop", ["", "yes"], [], body=body),
            helper.make_node("Identity", ["yes"], ["y"]),
        ],
        [("yes", TensorProto.BOOL, [])],
        [("y", TensorProto.BOOL, [])],
    )
    (tmp_path / "example.json").write_text('{"yes": true}')
    with pytest.raises(BundleError, match="was still running after|can't be loaded"):
        pack_file(
            graph,
            out,
            samples=tmp_path / "example.json",
            statement=TENSORS,
            limits=ProcessLimits(seconds=0.5),
        )
    assert not out.exists()


@pytest.mark.isolated
@pytest.mark.parametrize(
    ("huge", "said"),
    [
        ({"rounds": np.array(1 << 60)}, "was still running after"),
        ({"end": np.array(1 << 45)}, "MiB of memory"),
        ({"times": np.array([1 << 24]), "text": np.array(["x" * 9999])}, "MiB of memory"),
    ],
    ids=["time", "memory", "strings"],
)
def test_what_an_example_makes_a_graph_do_is_bounded(
    tmp_path: Path, out: Path, huge: dict[str, Any], said: str
) -> None:
    np.savez(tmp_path / "example.npz", **EXAMPLE | huge)
    with pytest.raises(BundleError, match=said):
        pack_file(
            write_unbounded(tmp_path / "g.onnx"),
            out,
            samples=tmp_path / "example.npz",
            statement=TENSORS,
            limits=ProcessLimits(seconds=0.5 if "rounds" in huge else 60, memory_mb=512),
        )
    assert not out.exists()


def test_pickles_and_bombs_in_an_example_are_refused(tmp_path: Path, out: Path) -> None:
    graph = one_node(tmp_path / "g.onnx", "Abs", ("y", TensorProto.FLOAT, ["n"]))
    file = tmp_path / "example.npz"
    np.savez(file, x=np.array([1.0, None], dtype=object))
    with pytest.raises(BundleError, match="must be an array of booleans, numbers or strings"):
        pack_tensors(graph, out, example=file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(300 << 20))
    with pytest.raises(BundleError, match="bytes, and at most"):
        pack_tensors(graph, out, example=file)
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}".ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", header)
    with pytest.raises(BundleError, match="larger than its file"):
        pack_tensors(graph, out, example=file)
    file.write_bytes(b"no zip")
    with pytest.raises(BundleError, match=r"is not a .npz"):
        pack_tensors(graph, out, example=file)


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda m: m.update(more=1), "more must be left out"),
        (lambda m: m.update(task="clustering"), "task must be one of 'classification'"),
        (lambda m: m["inputs"][0].update(datatype="FP8"), r"inputs\[0\].datatype must be one of"),
        (lambda m: m["inputs"][0].update(shape=[-2]), r"inputs\[0\].shape"),
        (lambda m: m["inputs"].append(m["inputs"][0]), "inputs must be unique"),
        (lambda m: m["outputs"][0].update(role="score"), r"outputs\[0\].role must be one of"),
        (lambda m: m["outputs"][0].update(role="probabilities"), "the role 'tensor' or 'state'"),
        (lambda m: m.update(golden="../x"), "golden must be"),
        (lambda m: m.update(golden="none.npz"), "which files doesn't list"),
        (lambda m: m["tolerances"].update(x={}), "tolerances has 'x'"),
        (lambda m: m["tolerances"]["squares"].update(relative=-1), "tolerances"),
        (lambda m: m["inputs"][1].update(shape=[-1, 3]), "must be INT64 of shape"),
        (lambda m: m["inputs"][1].update(name="digits"), "the manifest says"),
    ],
)
def test_a_manifest_with_a_wrong_member_is_refused_by_its_place(
    tmp_path: Path, out: Path, alter: Any, said: str
) -> None:
    pack_every_kind(tmp_path, out)
    document = json.loads((out / "manifest.json").read_text())
    alter(document)
    (out / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match=said):
        load_model(ModelSource(out))
