"""A network that, for some rows, does not come to an end."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from tests.damage import record_file


def make_endless(version: Path, above: float) -> None:
    """Have ``model.onnx`` of a version go round for ever where a feature is ``above`` that."""
    file = version / "model.onnx"
    model = onnx.load(file)
    _go_round_before_answering(model.graph, above)
    onnx.save(model, file)
    record_file(version, "model.onnx")


def _go_round_before_answering(graph: onnx.GraphProto, above: float) -> None:
    answer = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["answered" if name == answer else name for name in node.output]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["more"], ["still_more"]),
            helper.make_node("Identity", ["sum"], ["same_sum"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("still_more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("same_sum", TensorProto.FLOAT, []),
        ],
    )
    graph.initializer.extend(
        [
            helper.make_tensor("most", TensorProto.INT64, [], [1 << 62]),
            helper.make_tensor("none", TensorProto.INT64, [], [0]),
            helper.make_tensor("limit", TensorProto.FLOAT, [], [above]),
            helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
            helper.make_tensor("start", TensorProto.FLOAT, [], [0.0]),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("ReduceMax", [graph.input[0].name], ["largest"], keepdims=0),
            helper.make_node("Greater", ["largest", "limit"], ["is_above"]),
            helper.make_node("Where", ["is_above", "most", "none"], ["rounds"]),
            helper.make_node("Loop", ["rounds", "yes", "start"], ["end"], body=body),
            helper.make_node("Add", ["answered", "end"], [answer]),
        ]
    )
