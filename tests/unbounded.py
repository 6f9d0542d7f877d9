"""A graph that does as much as the values of its inputs say, in each way that ONNX has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.tensor_graphs import pack_tensors, write_graph

EXAMPLE: dict[str, Any] = {
    "rounds": np.array(1),
    "kept rounds": np.array(1),
    "doublings": np.array(1),
    "end": np.array(2),
    "shape": np.array([1, 2]),
    "sizes": np.array([1, 1, 2, 2]),
    "depth": np.array(2),
    "padding": np.array([0, 1]),
    "zeros": np.array([1, 1]),
    "times": np.array([2]),
    "text": np.array(["zoë"]),
    "x": np.ones((2, 1), dtype=np.float32),
    "boxes": np.array(2.0, dtype=np.float32),
}
"""An example for `write_unbounded`, which takes no time."""


def write_unbounded(path: Path) -> Path:
    """Write the graph: ``total`` is a number that depends on all inputs but the text."""
    node = helper.make_node
    nodes = [
        *_loops(),
        node("Range", ["0", "end", "1"], ["range"]),
        node("Expand", ["x00", "shape"], ["expanded"]),
        node("Resize", ["image", "", "", "sizes"], ["resized"], mode="nearest"),
        node("OneHot", ["zero", "depth", "off on"], ["one hot"]),
        node("Pad", ["ones", "padding"], ["padded"]),
        node("ConstantOfShape", ["zeros"], ["constant"]),
        node("Tile", ["text", "times"], ["texts"]),
        node("Transpose", ["x"], ["x'"]),
        node("MatMul", ["x", "x'"], ["products"]),
        *_overlaps(),
    ]
    large = [
        *("looped", "rounds kept", "doubled", "range", "expanded", "resized", "one hot", "padded"),
        *("constant", "products", "kept boxes"),
    ]
    for name in large:
        nodes.append(node("Size", [name], [f"size of {name}"]))
        nodes.append(node("Cast", [nodes[-1].output[0]], [f"float {name}"], to=TensorProto.FLOAT))
    nodes.append(node("Sum", [f"float {name}" for name in large], ["total"]))
    integers = [name for name, value in EXAMPLE.items() if value.dtype == np.int64]
    written = write_graph(
        path,
        nodes,
        [
            *((name, TensorProto.INT64, list(EXAMPLE[name].shape)) for name in integers),
            ("text", TensorProto.STRING, [1]),
            ("x", TensorProto.FLOAT, ["n", 1]),
            ("boxes", TensorProto.FLOAT, []),
        ],
        [("total", TensorProto.FLOAT, []), ("texts", TensorProto.STRING, None)],
    )
    graph = onnx.load(written)
    graph.graph.initializer.extend(_constants())
    onnx.save(graph, written)
    return written


def _constants() -> list[onnx.TensorProto]:
    tensor = helper.make_tensor
    return [
        tensor("0", TensorProto.INT64, [], [0]),
        tensor("1", TensorProto.INT64, [], [1]),
        tensor("yes", TensorProto.BOOL, [], [True]),
        tensor("zero", TensorProto.INT64, [1], [0]),
        tensor("start", TensorProto.FLOAT, [1], [1.0]),
        tensor("x00", TensorProto.FLOAT, [1], [1.0]),
        tensor("ones", TensorProto.FLOAT, [1], [1.0]),
        tensor("off on", TensorProto.FLOAT, [2], [0.0, 1.0]),
        tensor("image", TensorProto.FLOAT, [1, 1, 1, 1], [1.0]),
        tensor("0.0", TensorProto.FLOAT, [], [0.0]),
        tensor("1.0", TensorProto.FLOAT, [], [1.0]),
        tensor("first", TensorProto.INT64, [2], [0, 2]),
        tensor("zero one", TensorProto.INT64, [2], [0, 1]),
        tensor("all", TensorProto.INT64, [1], [1 << 40]),
        tensor("half", TensorProto.FLOAT, [1], [0.5]),
        tensor("none", TensorProto.FLOAT, [1], [-1.0]),
    ]


def _loops() -> list[onnx.NodeProto]:
    """Return loops that only go round, that keep a value of each round, and that double one."""
    node, info = helper.make_node, helper.make_tensor_value_info
    number, more = info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, [])
    goes_on, again = node("Identity", ["c"], ["goes on"]), info("goes on", TensorProto.BOOL, [])
    value, same = (info(name, TensorProto.FLOAT, None) for name in ("v", "v2"))
    kept = info("kept", TensorProto.INT64, [])
    idle = helper.make_graph(
        [goes_on, node("Identity", ["v"], ["v2"])], "idle", [number, more, value], [again, same]
    )
    keeping = helper.make_graph(
        [goes_on, node("Identity", ["i"], ["kept"])], "keep", [number, more], [again, kept]
    )
    doubling = helper.make_graph(
        [goes_on, node("Concat", ["v", "v"], ["v2"], axis=0)],
        "double",
        [number, more, value],
        [again, same],
    )
    return [
        node("Loop", ["rounds", "yes", "start"], ["looped"], body=idle),
        node("Loop", ["kept rounds", "yes"], ["rounds kept"], body=keeping),
        node("Loop", ["doublings", "yes", "start"], ["doubled"], body=doubling),
    ]


def _overlaps() -> list[onnx.NodeProto]:
    """Return one operation that compares as many boxes as an input says, each with each."""
    node = helper.make_node
    return [
        node("Range", ["0.0", "boxes", "1.0"], ["from"]),
        node("Add", ["from", "half"], ["to"]),
        node("Unsqueeze", ["from", "first"], ["from3"]),
        node("Unsqueeze", ["to", "first"], ["to3"]),
        node("Concat", ["from3", "from3", "to3", "to3"], ["corners"], axis=2),
        node("Mul", ["from", "0.0"], ["no score"]),
        node("Unsqueeze", ["no score", "zero one"], ["scores"]),
        node("NonMaxSuppression", ["corners", "scores", "all", "half", "none"], ["kept boxes"]),
    ]


def pack_unbounded(scratch: Path, out: Path) -> None:
    """Pack the graph at ``out``."""
    np.savez(scratch / "example.npz", **EXAMPLE)
    pack_tensors(write_unbounded(scratch / "any.onnx"), out, example=scratch / "example.npz")
