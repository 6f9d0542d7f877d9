"""Maps and sequences: converters write them, no protocol has them, so they become tensors.

A ZipMap makes a dictionary for each row of a matrix of scores: the matrix takes its place. A
SequenceConstruct puts the (rows, 2) probabilities of several classifiers of two classes side by
side: a matrix of the second columns takes its place, one column for each label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from msgspec import Struct
from onnx import TensorProto, helper

from ..model.errors import BundleError, shown
from ..model.signature import MAX_TENSORS, Array
from .graph_editor import GraphEditor
from .graph_file import open_graph
from .graph_index import GraphIndex, is_ml, is_operator
from .graph_labels import LabelReader
from .served_graph import second_columns

_TWO = 2


class Unpacked(Struct, frozen=True):
    """An output that was a map or a sequence, and how the original's answer becomes the tensor."""

    keys: tuple[str | int, ...]
    unpack: Callable[[Any], Array]
    note: str


def unpack_containers(model: onnx.ModelProto, path: Path) -> dict[str, Unpacked]:
    """Replace each output of ``model`` that is a map or a sequence by a tensor of its name.

    Raises `BundleError` for a sequence of something else than matrices of two columns.
    """
    index = GraphIndex(model)
    editor = GraphEditor(model, path)
    found: dict[str, Unpacked] = {}
    for output in model.graph.output:
        made = _container(index, output.name)
        if made is None or output.type.HasField("tensor_type"):
            continue
        if is_ml(made, "ZipMap"):
            keys = LabelReader(index).zipped(made)
            matrix, columns, entry = made.input[0], len(keys), _zipped(output.name, keys)
        else:
            _check_pairs(model, index, made, output.name, path)
            matrix, columns = second_columns(editor, made.input), len(made.input)
            entry = _sequence(output.name, columns)
        found[output.name] = entry
        element = _element_type(output.type)
        editor.redefine(output.name, matrix)
        output.CopyFrom(helper.make_tensor_value_info(output.name, element, [None, columns]))
    if found:
        editor.drop_unused()
    return found


def _element_type(container: onnx.TypeProto) -> int:
    """Return the type of the numbers in a sequence, or in the maps of one."""
    inside = container.sequence_type.elem_type
    if inside.HasField("map_type"):
        inside = inside.map_type.value_type
    element: int = inside.tensor_type.elem_type
    return element or TensorProto.FLOAT


def _container(index: GraphIndex, name: str) -> onnx.NodeProto | None:
    made = index.producer(name)
    if made is None:
        return None
    is_container = is_ml(made[0], "ZipMap") or is_operator(made[0], "SequenceConstruct")
    return made[0] if is_container and made[0].input else None


def _zipped(name: str, keys: tuple[str | int, ...]) -> Unpacked:
    def unpack(answer: Any) -> Array:
        return np.array([[row[key] for key in keys] for row in answer], dtype=np.float32).reshape(
            len(answer), len(keys)
        )

    return Unpacked(keys, unpack, f"ZipMap removed: {shown(name)} is the matrix that went into it.")


def _sequence(name: str, labels: int) -> Unpacked:
    def unpack(answer: Any) -> Array:
        return np.stack([np.asarray(pair)[:, 1] for pair in answer], axis=1)

    note = (
        f"The sequence {shown(name)} became one matrix: a column for each of {labels} labels, with "
        "the probability of its second class."
    )
    return Unpacked((), unpack, note)


def _check_pairs(
    model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto, name: str, path: Path
) -> None:
    """Raise `BundleError` unless what a sequence is made of has two columns each."""
    if len(node.input) > MAX_TENSORS:
        raise BundleError(
            f"{path}: the output {shown(name)} is a sequence of {len(node.input):,} tensors, which "
            f"exceeds the limit of {MAX_TENSORS:,}."
        )
    reader = LabelReader(index)
    widths = [len(reader.of_columns(part).names) for part in node.input]
    if not all(widths):
        widths = _widths(model, node.input, path)
    other = next((width for width in widths if width != _TWO), None)
    if other is not None:
        has = f"has {other} columns" if other else "has an unknown number of columns"
        raise BundleError(
            f"{path}: the output {shown(name)} is a sequence of {len(widths)} tensors, and one "
            f"{has}; only sequences of probabilities of two classes each are served, as several "
            "labels. Export one model for each target, or let the graph return one tensor."
        )


def _widths(model: onnx.ModelProto, names: Sequence[str], path: Path) -> list[int]:
    """Return how many columns ONNX Runtime infers for each value; 0 where it can't tell."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    wanted = list(dict.fromkeys(names))
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    shapes = {each.name: each.shape for each in open_graph(probe, path).get_outputs()}
    return [
        shape[1] if len(shape) == _TWO and isinstance(shape[1], int) else 0
        for shape in (shapes[name] for name in names)
    ]
