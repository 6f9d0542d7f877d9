"""A network that takes milliseconds for a row, and gives the same answers as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.damage import record_file

_WIDTH = 512


def make_slow(version: Path, products: int = 3) -> None:
    """Have ``model.onnx`` of a version multiply matrices, of some ms each, before it answers."""
    file = version / "model.onnx"
    model = onnx.load(file)
    _multiply_before_answering(model.graph, products)
    onnx.save(model, file)
    record_file(version, "model.onnx")


def _multiply_before_answering(graph: onnx.GraphProto, products: int) -> None:
    answer = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["unhurried" if name == answer else name for name in node.output]
    square = np.zeros((_WIDTH, _WIDTH), dtype=np.float32)
    graph.initializer.append(numpy_helper.from_array(square, "square"))
    graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
    # Something that varies goes into it, or the product would be made once, at the load.
    graph.node.extend(
        [
            helper.make_node("Size", [graph.input[0].name], ["size"]),
            helper.make_node("Cast", ["size"], ["varying"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", ["varying", "nothing"], ["zero"]),
            helper.make_node("Add", ["square", "zero"], ["product_0"]),
        ]
    )
    for number in range(products):
        before = f"product_{number}"
        graph.node.append(helper.make_node("MatMul", [before, before], [f"product_{number + 1}"]))
    graph.node.extend(
        [
            helper.make_node("ReduceMax", [f"product_{products}"], ["largest_product"], keepdims=0),
            helper.make_node("Add", ["unhurried", "largest_product"], [answer]),
        ]
    )
