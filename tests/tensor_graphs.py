"""Small ONNX graphs of many kinds of tensors, which are no classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from app.model.manifest import Manifest
from app.packing.file import pack_file
from app.packing.statement import Statement

Value = tuple[str, int, Sequence[Any] | None]


def write_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
) -> Path:
    """Write a graph; the shape of a tensor is None where the graph is not to say it."""
    values = [
        [helper.make_tensor_value_info(*value) for value in each] for each in (inputs, outputs)
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", *values),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    path.write_bytes(model.SerializeToString())
    return path


def every_kind(path: Path) -> Path:
    """Write a graph of several datatypes and ranks, with a state and outputs of any size."""
    node = helper.make_node
    return write_graph(
        path,
        [
            node("Identity", ["text"], ["same text"]),
            node("ReduceSum", ["numbers"], ["total"], keepdims=0),
            node("Not", ["flag"], ["not flag"]),
            node("Mul", ["row", "row"], ["squares"]),
            node("NonZero", ["row"], ["places"]),
            node("Identity", ["half"], ["same half"]),
            node("Add", ["state", "state"], ["next state"]),
        ],
        [
            ("text", TensorProto.STRING, ["n"]),
            ("numbers", TensorProto.INT64, ["n", 2]),
            ("flag", TensorProto.BOOL, []),
            ("row", TensorProto.FLOAT, [1, "steps"]),
            ("half", TensorProto.FLOAT16, [2]),
            ("state", TensorProto.DOUBLE, [2]),
        ],
        [
            ("same text", TensorProto.STRING, ["n"]),
            ("total", TensorProto.INT64, []),
            ("not flag", TensorProto.BOOL, []),
            ("squares", TensorProto.FLOAT, [1, "steps"]),
            ("places", TensorProto.INT64, None),
            ("same half", TensorProto.FLOAT16, [2]),
            ("next state", TensorProto.DOUBLE, [2]),
        ],
    )


EVERY_KIND: dict[str, Any] = {
    "text": np.array(["zoë", ""], dtype=np.str_),
    "numbers": np.array([[1, 2], [3, -4]]),
    "flag": np.array(True),
    "row": np.array([[1.5, 0, -2]], dtype=np.float32),
    "half": np.array([0.5, 65504], dtype=np.float16),
    "state": np.array([1.0, 0.1]),
}
"""An example for `every_kind`."""


BFLOAT16_WEIGHT = [[1.0, -0.5], [0.25, 2.0], [3.0, 0.125]]


def in_bfloat16(path: Path) -> Path:
    """Write a graph in bfloat16 as exporters do that know a CPU's operators: its weights are, and a
    cast stands on each side of what is computed.

    ``y`` is ``x @ BFLOAT16_WEIGHT``, ``next state`` the state and that, ``same x`` is ``x``.
    """
    weight = helper.make_tensor(
        "w", TensorProto.BFLOAT16, [3, 2], [each for row in BFLOAT16_WEIGHT for each in row]
    )
    node, wide, narrow = helper.make_node, TensorProto.FLOAT, TensorProto.BFLOAT16
    return write_graph(
        path,
        [
            node("Constant", [], ["w"], value=weight),
            *(node("Cast", [name], [f"{name} wide"], to=wide) for name in ("w", "x", "state")),
            node("MatMul", ["x wide", "w wide"], ["product"]),
            node("Add", ["state wide", "product"], ["sum"]),
            node("Cast", ["product"], ["y"], to=narrow),
            node("Cast", ["sum"], ["next state"], to=narrow),
            node("Identity", ["x"], ["same x"]),
        ],
        [("x", narrow, ["n", 3]), ("state", narrow, ["n", 2])],
        [("y", narrow, ["n", 2]), ("next state", narrow, ["n", 2]), ("same x", narrow, ["n", 3])],
    )


def pack_every_kind(scratch: Path, out: Path) -> Manifest:
    """Pack `every_kind` at ``out``."""
    np.savez(scratch / "example.npz", **EVERY_KIND)
    return pack_tensors(every_kind(scratch / "any.onnx"), out, scratch / "example.npz")


def pack_tensors(graph: Path, out: Path, example: Path) -> Manifest:
    """Pack a graph at ``out`` for the tensors that it has."""
    return pack_file(graph, out, samples=example, statement=Statement(task="tensors")).manifest
