"""ONNX graphs: read a user's, and make the one that is served.

The served graph takes float32 ``(rows, width)`` and returns float32 probabilities ``(rows,
classes)``; nodes for that are added before and after the user's graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..model.errors import BundleError
from .graph_file import graphs_of, load_graph, open_graph, remove_traces, serialised
from .source import Answers, Matrix, Source, asking

_ROWS = 256
_IR_VERSION = 8
"""The lowest version of the format that is written: from 4 on, weights need not be inputs, too."""
_NULLS_OPSET = 9
"""The first opset that has IsNaN and Where on floats."""
_DTYPES: dict[int, Any] = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64}


def read_graph(path: Path) -> Source:
    """Read an ``.onnx`` file of one float matrix to one float matrix.

    Weights in files beside it are read, too. If only one output is a matrix of floats, others, such
    as a predicted class beside the probabilities, are dropped. Raises `BundleError`.
    """
    model = load_graph(path)
    given = _input(model, path)
    output = _output(model, path)
    rows, width = (_size(dim) for dim in given.type.tensor_type.shape.dim)
    dtype = _DTYPES[given.type.tensor_type.elem_type]
    session = open_graph(model, path)

    def run(matrix: Matrix) -> Answers:
        answers: Answers = session.run([output.name], {given.name: matrix.astype(dtype)})[0]
        return answers

    ask = asking(run, path, width=width, rows=rows or _ROWS)
    return Source(path, model, ask, rows, dtype is np.float64)


def served_graph(
    source: Source, *, medians: Matrix | None, softmax: bool, width: int, classes: int
) -> bytes:
    """Return the graph that is served, of any number of rows.

    ``medians``, float32 ``(width,)``, replace NaN; where they are NaN themselves, NaN is kept.
    Raises `BundleError` if the graph can't be written.
    """
    model = onnx.ModelProto()
    model.CopyFrom(source.graph)
    graph = model.graph
    given, output = _input(model, source.path), _output(model, source.path)
    names = _Names(graph)
    features, before = _in_front(model, given, medians, names, source.path)
    probabilities, behind = _behind(output, softmax, names)
    nodes = [*before, *graph.node, *behind]
    del graph.node[:], graph.input[:], graph.output[:]
    del graph.value_info[:]  # they may have a fixed number of rows
    graph.node.extend(nodes)
    graph.input.append(_matrix_info(features, width))
    graph.output.append(_matrix_info(probabilities, classes))
    remove_traces(model)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    return serialised(model, source.path)


def _in_front(
    model: onnx.ModelProto,
    given: onnx.ValueInfoProto,
    medians: Matrix | None,
    names: _Names,
    path: Path,
) -> tuple[str, list[onnx.NodeProto]]:
    """Return the name of the new input, and the nodes from it to the input of the user's graph."""
    double = given.type.tensor_type.elem_type == TensorProto.DOUBLE
    if medians is None and not double:
        return given.name, []
    features = last = names.new("features")
    nodes = []
    if medians is not None:
        opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        if opset < _NULLS_OPSET:
            raise BundleError(
                f"{path} has opset {opset}, but a median requires {_NULLS_OPSET}; export it with a "
                "newer one."
            )
        constant, null, last = (names.new(n) for n in ("medians", "is_null", "without_null"))
        model.graph.initializer.append(numpy_helper.from_array(medians, constant))
        nodes.append(helper.make_node("IsNaN", [features], [null]))
        nodes.append(helper.make_node("Where", [null, constant, features], [last]))
    to = TensorProto.DOUBLE if double else TensorProto.FLOAT
    nodes.append(helper.make_node("Cast", [last], [given.name], to=to))
    return features, nodes


def _behind(
    output: onnx.ValueInfoProto, softmax: bool, names: _Names
) -> tuple[str, list[onnx.NodeProto]]:
    """Return the name of the new output, and the nodes to it from the output of the user's
    graph.
    """
    answer, nodes = output.name, []
    if softmax:
        answer = names.new("probabilities")
        nodes.append(helper.make_node("Softmax", [output.name], [answer], axis=1))
    if output.type.tensor_type.elem_type == TensorProto.DOUBLE:
        wide, answer = answer, names.new("probabilities")
        nodes.append(helper.make_node("Cast", [wide], [answer], to=TensorProto.FLOAT))
    return answer, nodes


class _Names:
    """The names of the values in a graph and its subgraphs, to find new ones."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._taken: set[str] = set()
        for part in graphs_of(graph):
            for node in part.node:
                self._taken.update(node.input, node.output)
            for values in (part.input, part.output, part.initializer):
                self._taken.update(value.name for value in values)

    def new(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def _input(model: onnx.ModelProto, path: Path) -> onnx.ValueInfoProto:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise BundleError(
            f"{path} takes {len(inputs)} inputs ({_listed(inputs)}); one matrix of features is "
            "expected."
        )
    if not _is_float_matrix(inputs[0]):
        raise BundleError(
            f"{path} takes {_form(inputs[0])}; a matrix of float32 or float64, one row per sample, "
            "is expected."
        )
    given: onnx.ValueInfoProto = inputs[0]
    return given


def _output(model: onnx.ModelProto, path: Path) -> onnx.ValueInfoProto:
    outputs = list(model.graph.output)
    matrices = outputs if len(outputs) == 1 else [v for v in outputs if _is_float_matrix(v)]
    if len(matrices) != 1:
        raise BundleError(
            f"{path} returns {len(outputs)} outputs ({_listed(outputs)}), of which {len(matrices)} "
            "are matrices of floats; one, of logits or probabilities (rows, classes), is expected. "
            "(skl2onnx: options={'zipmap': False}.)"
        )
    if matrices[0].type.tensor_type.elem_type not in _DTYPES:
        raise BundleError(
            f"{path} returns {_form(matrices[0])}; logits or probabilities as float32 or float64 "
            "(rows, classes) are expected."
        )
    output: onnx.ValueInfoProto = matrices[0]
    return output


def _is_float_matrix(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    return tensor.elem_type in _DTYPES and len(tensor.shape.dim) == 2


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | None:
    return dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None


def _listed(values: list[onnx.ValueInfoProto]) -> str:
    return ", ".join(value.name for value in values[:5]) or "none"


def _form(value: onnx.ValueInfoProto) -> str:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return f"a {kind or 'value'} and not a tensor"
    tensor = value.type.tensor_type
    shape = ", ".join(d.dim_param or str(d.dim_value) for d in tensor.shape.dim)
    names = {number: name.lower() for name, number in TensorProto.DataType.items()}
    return f"{names.get(tensor.elem_type, 'an unknown type')} of shape ({shape})"


def _matrix_info(name: str, columns: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", columns])
