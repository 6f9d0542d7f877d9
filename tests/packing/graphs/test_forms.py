"""The forms that packing adds to a graph, run by ONNX Runtime in opsets old and new."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.model.errors import BundleError
from app.model.signature import Tensors, TensorSpec
from app.packing.graphs.editor import GraphEditor
from app.packing.graphs.file import open_graph
from app.packing.graphs.forms import (
    as_column,
    as_fp32,
    as_vector,
    fill_nulls,
    finished,
    label_index,
    second_columns,
    second_probabilities,
    sigmoid,
    softmax,
    two_probabilities,
    two_scores,
)

ML = "ai.onnx.ml"
PATH = Path("model.onnx")
TYPES = {
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "BOOL": (TensorProto.BOOL, np.bool_),
    "BYTES": (TensorProto.STRING, np.object_),
}
node = helper.make_node


def graph(
    shape: Sequence[Any] = ("n", 3),
    datatype: str = "FP32",
    *,
    opset: int = 18,
    ml: int = 0,
    nodes: Sequence[onnx.NodeProto] = (),
    outputs: Sequence[str] = ("y",),
    constants: dict[str, Any] | None = None,
) -> GraphEditor:
    """Return an editor of a graph whose ``y`` is ``x``, unless its nodes say otherwise."""
    element = TYPES[datatype][0]
    opsets = [
        helper.make_opsetid(name, version) for name, version in (("", opset), (ML, ml)) if version
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes or [node("Identity", ["x"], ["y"])],
            "graph",
            [helper.make_tensor_value_info("x", element, shape)],
            [helper.make_tensor_value_info(name, element, None) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
        ),
        opset_imports=opsets,
        ir_version=4,
    )
    return GraphEditor(model, PATH)


def run(content: bytes, given: Tensors) -> dict[str, Any]:
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model)
    session = open_graph(model, PATH)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(given)), strict=True))


def answer(editor: GraphEditor, value: str, spec: TensorSpec, x: Any) -> Any:
    """Return what ``x`` becomes by the form that was added."""
    editor.set_outputs([(value, spec)])
    return run(finished(editor), {"x": x})[spec.name]


def exact_softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


MATRIX = np.array([[1, -2, 3], [0.5, 0, 0]])
COLUMN = np.array([[0.25], [1], [0]])
FORMS: dict[str, tuple[Callable[[GraphEditor, str, str], str], Any, Any, list[int]]] = {
    "softmax": (lambda e, v, _: softmax(e, v), MATRIX, exact_softmax(MATRIX), [-1, 3]),
    "sigmoid": (lambda e, v, _: sigmoid(e, v), MATRIX, 1 / (1 + np.exp(-MATRIX)), [-1, 3]),
    "two probabilities": (two_probabilities, COLUMN, np.hstack([1 - COLUMN, COLUMN]), [-1, 2]),
    "two scores": (lambda e, v, _: two_scores(e, v), COLUMN, np.hstack([-COLUMN, COLUMN]), [-1, 2]),
    "a column": (lambda e, v, _: as_column(e, v), COLUMN[:, 0], COLUMN, [-1, 1]),
    "a vector": (lambda e, v, _: as_vector(e, v), COLUMN, COLUMN[:, 0], [-1]),
}


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 21])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_that_of_numpy(form: str, datatype: str, opset: int) -> None:
    add, x, expected, shape = FORMS[form]
    editor = graph(["n", *x.shape[1:]], datatype, opset=opset)
    value = add(editor, "y", datatype)
    dtype = TYPES[datatype][1]
    found = answer(editor, value, TensorSpec("out", datatype, tuple(shape)), x.astype(dtype))
    assert found.dtype == dtype
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_numbers_become_fp32() -> None:
    for datatype in ("FP64", "INT64", "INT32", "BOOL"):
        editor = graph(datatype=datatype)
        x = np.array([[1, 0, 1]], TYPES[datatype][1])
        found = answer(editor, as_fp32(editor, "y"), TensorSpec("out", "FP32", (-1, 3)), x)
        assert found.dtype == np.float32
        assert found.tolist() == [[1, 0, 1]]


@pytest.mark.parametrize("ml", [0, 1, 2, 3, 5])
@pytest.mark.parametrize(
    ("datatype", "labels", "x", "expected"),
    [
        ("INT64", (7, -1, 0), [0, 7, 5, -1], [2, 0, -1, 1]),
        ("INT32", (7, -1, 0), [0, 7, 5, -1], [2, 0, -1, 1]),
        ("BOOL", (0, 1), [True, False], [1, 0]),
        ("BYTES", ("b", "zoë", ""), ["", "zoë", "x"], [2, 1, -1]),
        ("BYTES", (0, 1), ["1", "0"], [1, 0]),
    ],
)
def test_a_label_becomes_its_index(
    datatype: str, labels: tuple[Any, ...], x: list[Any], expected: list[int], ml: int
) -> None:
    editor = graph(["n"], datatype, ml=ml)
    index = label_index(editor, "y", labels, datatype)
    found = answer(
        editor, index, TensorSpec("label", "INT64", (-1,)), np.array(x, TYPES[datatype][1])
    )
    assert found.dtype == np.int64
    assert found.tolist() == expected


def test_a_label_encoder_of_the_first_version_stays(tmp_path: Path) -> None:
    """It has another meaning from version 2 on, so the version must not be raised."""
    encode = node("LabelEncoder", ["x"], ["code"], domain=ML, classes_strings=["a", "b"])
    nodes = [encode, node("Identity", ["x"], ["y"])]
    editor = graph(["n"], "BYTES", ml=1, nodes=nodes)
    index = label_index(editor, "y", ("b", "a"), "BYTES")
    editor.set_outputs(
        [(index, TensorSpec("label", "INT64", (-1,))), ("code", TensorSpec("code", "INT64", (-1,)))]
    )
    found = run(finished(editor), {"x": np.array(["a", "c"], object)})
    assert {name: each.tolist() for name, each in found.items()} == {
        "label": [1, -1],
        "code": [0, -1],
    }
    editor = graph(["n"], "BYTES", ml=1, nodes=nodes)
    with pytest.raises(BundleError, match="LabelEncoder of version 1"):
        label_index(editor, "code", (0, 1), "INT64")


def test_names_are_no_labels_of_integers() -> None:
    with pytest.raises(BundleError, match="no integer is 'b'"):
        label_index(graph(["n"], "INT64"), "y", (1, "b"), "INT64")


def test_several_labels_of_two_classes_are_one_matrix() -> None:
    editor = graph(["n", 2])
    value = second_columns(editor, ["x", "y"])
    x = np.array([[0.25, 0.75]], np.float32)
    found = answer(editor, value, TensorSpec("out", "FP32", (-1, 2)), x)
    assert found.tolist() == [[0.75, 0.75]]
    editor = graph([3, "n", 2])
    stack = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    value = second_probabilities(editor, "y")
    found = answer(editor, value, TensorSpec("out", "FP32", (-1, 3)), stack)
    assert found.tolist() == stack[:, :, 1].T.tolist()


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("opset", [9, 13, 18])
def test_medians_replace_nulls_where_there_are_any(datatype: str, opset: int) -> None:
    editor = graph(datatype=datatype, opset=opset)
    fill_nulls(editor, {"x": np.array([5, np.nan, 7])})
    x = np.array([[np.nan, np.nan, 1], [1, 2, np.nan]], TYPES[datatype][1])
    found = answer(editor, "y", TensorSpec("y", datatype, (-1, 3)), x)
    assert np.array_equal(found, [[5, np.nan, 1], [1, 2, 7]], equal_nan=True)


def test_a_median_of_one_column_has_any_shape() -> None:
    for shape in ((2,), (2, 1)):
        editor = graph(["n", 1][: len(shape)])
        fill_nulls(editor, {"x": np.array([5.0])})
        x = np.array([np.nan, 1], np.float32).reshape(shape)
        spec = TensorSpec("y", "FP32", (-1, 1)[: len(shape)])
        assert answer(editor, "y", spec, x).ravel().tolist() == [5, 1]


def test_a_median_reaches_the_branches_of_a_graph() -> None:
    def branch(operator: str) -> Any:
        made = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
        return helper.make_graph([node(operator, ["x"], ["inner"])], operator, [], [made])

    choose = node("If", ["yes"], ["y"], then_branch=branch("Identity"), else_branch=branch("Neg"))
    editor = graph(nodes=[choose], constants={"yes": np.array(True)})
    fill_nulls(editor, {"x": np.array([5.0, 6.0, 7.0])})
    x = np.full((1, 3), np.nan, np.float32)
    assert answer(editor, "y", TensorSpec("y", "FP32", (-1, 3)), x).tolist() == [[5, 6, 7]]


def test_a_median_is_refused_where_it_can_not_be() -> None:
    with pytest.raises(BundleError, match="opset 8, but a median requires 9"):
        fill_nulls(graph(opset=8), {"x": np.ones(3)})
    with pytest.raises(BundleError, match="'x' is no input of FP32 or FP64"):
        fill_nulls(graph(datatype="INT64"), {"x": np.ones(3)})
    fill_nulls(graph(datatype="INT64"), {"x": np.full(3, np.nan)})


def test_an_old_graph_is_refused() -> None:
    with pytest.raises(BundleError, match="opset 6, but Softmax requires 7"):
        softmax(graph(opset=6), "y")


def test_a_graph_of_trees_alone_gets_the_other_operators() -> None:
    scale = node("Scaler", ["x"], ["y"], domain=ML, offset=[1.0], scale=[2.0])
    editor = graph(nodes=[scale], opset=0, ml=1)
    found = answer(
        editor, softmax(editor, "y"), TensorSpec("p", "FP32", (-1, 3)), np.eye(3, dtype=np.float32)
    )
    assert found.sum(axis=1) == pytest.approx(1)


def test_outputs_that_nobody_wants_go_with_what_only_they_need() -> None:
    nodes = [
        node("Mul", ["x", "two"], ["shared"]),
        node("Add", ["shared", "three"], ["y"]),
        node("MatMul", ["shared", "large"], ["other"]),
    ]
    constants = {
        "two": np.float32([2]),
        "three": np.float32([3]),
        "large": np.eye(3, dtype=np.float32),
    }
    editor = graph(nodes=nodes, outputs=["y", "other"], constants=constants)
    found = answer(editor, "y", TensorSpec("y", "FP32", (-1, 3)), np.ones((1, 3), np.float32))
    assert found.tolist() == [[5, 5, 5]]
    kept = editor.model.graph
    assert [each.op_type for each in kept.node] == ["Mul", "Add"]
    assert [each.name for each in kept.initializer] == ["two", "three"]


def test_outputs_may_swap_their_names() -> None:
    nodes = [node("Neg", ["x"], ["y"]), node("Abs", ["y"], ["label"])]
    editor = graph(nodes=nodes, outputs=["y", "label"])
    editor.set_outputs(
        [("label", TensorSpec("y", "FP32", (-1, 3))), ("y", TensorSpec("label", "FP32", (2, 3)))]
    )
    found = run(finished(editor), {"x": np.ones((2, 3), np.float32)})
    assert (found["y"][0, 0], found["label"][0, 0]) == (1, -1)
    shapes = [
        [dim.dim_value or dim.dim_param for dim in each.type.tensor_type.shape.dim]
        for each in editor.model.graph.output
    ]
    assert shapes == [["y_0", 3], [2, 3]]


def test_an_output_is_not_called_as_an_input() -> None:
    with pytest.raises(BundleError, match="an input or a weight called 'x'"):
        graph().set_outputs([("y", TensorSpec("x", "FP32", (-1, 3)))])


def test_a_finished_graph_has_no_traces() -> None:
    editor = graph()
    editor.model.doc_string = editor.model.graph.node[0].doc_string = "/home/me"
    model = onnx.load_from_string(finished(editor))
    assert b"/home/me" not in model.SerializeToString()
    assert model.ir_version >= 8


def test_a_new_name_is_that_of_no_value() -> None:
    nodes = [node("Identity", ["x" if not i else f"v_{i}"], [f"v_{i + 1}"]) for i in range(3_000)]
    editor = graph(nodes=[*nodes, node("Identity", ["v_3000"], ["y"])])
    names = [editor.new_name("v") for _ in range(3_000)]
    assert names[:2] == ["v", "v_3001"]
    assert len(set(names)) == 3_000
    assert [editor.new_name(each) for each in ("x", "y", "free")] == ["x_1", "y_1", "free"]
