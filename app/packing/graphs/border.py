"""The border of a graph: what it takes and returns in bfloat16, which numpy lacks, it takes and
returns in float32 instead.

A cast stands behind each such input and before each such output. Neither changes a value that is
one of bfloat16, so the graph answers as it did.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

from .editor import GraphEditor
from .file import graphs_of

_CAST_OPSET = 13
"""The first opset that casts to bfloat16."""
_LACKS_OPERATOR = "Could not find an implementation"
_ADVICE = (
    " It computes in bfloat16, in which ONNX Runtime has hardly any operators on a CPU. Convert "
    "the model before the export: model.float()."
)


def carry_bfloat16(model: onnx.ModelProto, path: Path) -> frozenset[str]:
    """Let ``model`` take and return float32 where it has bfloat16, and return the names of those
    inputs and outputs. ``path`` is for messages. Raises `BundleError` for an opset without
    bfloat16.
    """
    graph = model.graph
    weights = {each.name for each in graph.initializer}  # in old graphs they are inputs, too
    inputs = [each for each in graph.input if _is_bfloat16(each) and each.name not in weights]
    outputs = [each for each in graph.output if _is_bfloat16(each)]
    names = frozenset(each.name for each in (*inputs, *outputs))
    if not names:
        return names
    editor = GraphEditor(model, path)
    editor.needs_opset(_CAST_OPSET, "an input or output in bfloat16")
    for each in inputs:
        inner = editor.replace_input(each.name, f"{each.name}_bfloat16")
        editor.put_in_front("Cast", [each.name], inner, to=TensorProto.BFLOAT16)
    taken = {each.name for each in inputs}
    for each in outputs:
        if each.name not in taken:  # an input that is returned as it is
            editor.redefine(each.name, each.name, "Cast", to=TensorProto.FLOAT)
    for each in (*inputs, *outputs):
        each.type.tensor_type.elem_type = TensorProto.FLOAT
    kept = [each for each in graph.value_info if each.name not in names]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    editor.drop_unused()
    return names


def about_bfloat16(model: onnx.ModelProto, error: object) -> str:
    """Return advice for a graph that ONNX Runtime doesn't take because it computes in bfloat16;
    empty for any other.
    """
    said = str(error)
    is_meant = _LACKS_OPERATOR in said or "bfloat16" in said
    return _ADVICE if is_meant and _has_bfloat16(model) else ""


def _has_bfloat16(model: onnx.ModelProto) -> bool:
    """Return True if a tensor of a graph is said to be in bfloat16."""
    return any(
        any(map(_is_bfloat16, (*part.input, *part.output, *part.value_info)))
        or any(weight.data_type == TensorProto.BFLOAT16 for weight in part.initializer)
        or any(map(_casts_to_bfloat16, part.node))
        for part in graphs_of(model.graph)
    )


def _is_bfloat16(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type == int(TensorProto.BFLOAT16)


def _casts_to_bfloat16(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(
        each.name == "to" and each.i == TensorProto.BFLOAT16 for each in node.attribute
    )
