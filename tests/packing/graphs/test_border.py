"""Graphs that take and return bfloat16: read with float32 at the border, and the same inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from app.model.errors import BundleError
from app.packing.graphs.reading import read_graph
from tests.tensor_graphs import BFLOAT16_WEIGHT, in_bfloat16, write_graph

NARROW = TensorProto.BFLOAT16
node = helper.make_node


def test_a_graph_in_bfloat16_answers_as_torch_does(tmp_path: Path) -> None:
    source = read_graph(in_bfloat16(tmp_path / "model.onnx"))
    outputs = [output.spec for output in source.outputs]
    assert {spec.name: spec.datatype for spec in (*source.inputs, *outputs)} == dict.fromkeys(
        ("x", "state", "y", "next state", "same x"), "BF16"
    )
    chance = np.random.default_rng(0)
    given = {
        "x": chance.normal(0, 3, (50, 3)).astype(np.float32),
        "state": chance.normal(0, 3, (50, 2)).astype(np.float32),
    }
    x, state = (torch.from_numpy(given[name]).bfloat16() for name in ("x", "state"))
    product = x.float() @ torch.tensor(BFLOAT16_WEIGHT)
    expected = {
        "y": product.bfloat16(),
        "next state": (state.float() + product).bfloat16(),
        "same x": x,
    }
    found = source.ask(given)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.float().numpy(), err_msg=name)


def test_an_input_that_is_an_output_and_one_that_nothing_uses_stay(tmp_path: Path) -> None:
    path = write_graph(
        tmp_path / "model.onnx",
        [node("Transpose", ["x"], ["turned"])],
        [("x", NARROW, [2, 3]), ("unused", NARROW, [1])],
        [("x", NARROW, [2, 3]), ("turned", NARROW, [3, 2])],
    )
    source = read_graph(path)
    assert [spec.name for spec in source.inputs] == ["x", "unused"]
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = source.ask({"x": x, "unused": np.ones(1, np.float32)})
    np.testing.assert_array_equal(found["x"], x)
    np.testing.assert_array_equal(found["turned"], x.T)


def test_a_branch_uses_an_input_in_bfloat16(tmp_path: Path) -> None:
    def branch(operator: str) -> Any:
        made = helper.make_tensor_value_info("made", NARROW, [2])
        return helper.make_graph([node(operator, ["x"], ["made"])], operator, [], [made])

    path = write_graph(
        tmp_path / "model.onnx",
        [
            node(
                "If",
                ["flag"],
                ["y"],
                then_branch=branch("Identity"),
                else_branch=branch("Transpose"),
            )
        ],
        [("x", NARROW, [2]), ("flag", TensorProto.BOOL, [])],
        [("y", NARROW, [2])],
    )
    x = np.array([1.5, -2], np.float32)
    found = read_graph(path).ask({"x": x, "flag": np.array(True)})
    np.testing.assert_array_equal(found["y"], x)


@pytest.mark.parametrize(
    ("nodes", "output"),
    [
        ([node("MatMul", ["x", "x"], ["y"])], NARROW),
        (
            [
                node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
                node("Add", ["wide", "x"], ["y"]),
            ],
            TensorProto.FLOAT,
        ),
    ],
    ids=["no such operator", "mixed"],
)
def test_what_computes_in_bfloat16_is_refused_with_what_to_do(
    tmp_path: Path, nodes: list[Any], output: int
) -> None:
    path = write_graph(
        tmp_path / "model.onnx", nodes, [("x", NARROW, [2, 2])], [("y", output, [2, 2])]
    )
    with pytest.raises(BundleError) as error:
        read_graph(path)
    assert "It computes in bfloat16, in which ONNX Runtime has hardly any" in str(error.value)
    assert str(error.value).endswith("Convert the model before the export: model.float().")


def test_an_operator_that_is_missing_is_not_blamed_on_bfloat16(tmp_path: Path) -> None:
    path = write_graph(
        tmp_path / "model.onnx",
        [node("Gelu", ["x"], ["y"], domain="nobody")],
        [("x", TensorProto.FLOAT, [2])],
        [("y", TensorProto.FLOAT, [2])],
    )
    with pytest.raises(BundleError) as error:
        read_graph(path)
    assert "bfloat16" not in str(error.value)


def test_a_probability_in_bfloat16_is_known_as_one(tmp_path: Path) -> None:
    path = write_graph(
        tmp_path / "model.onnx",
        [
            node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
            node("Softmax", ["wide"], ["p"]),
            node("Cast", ["p"], ["y"], to=NARROW),
        ],
        [("x", NARROW, ["n", 3])],
        [("y", NARROW, ["n", 3])],
    )
    (output,) = read_graph(path).outputs
    assert (output.kind, output.spec.datatype) == ("probabilities", "BF16")
