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


def pack_every_kind(scratch: Path, out: Path) -> Manifest:
    """Pack `every_kind` at ``out``."""
    np.savez(scratch / "example.npz", **EVERY_KIND)
    return pack_tensors(every_kind(scratch / "any.onnx"), out, scratch / "example.npz")


def pack_tensors(graph: Path, out: Path, example: Path) -> Manifest:
    """Pack a graph at ``out`` for the tensors that it has."""
    return pack_file(graph, out, samples=example, statement=Statement(task="tensors")).manifest
