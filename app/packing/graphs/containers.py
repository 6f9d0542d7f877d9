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

from ...model.errors import BundleError, shown
from ...model.signature import MAX_TENSORS, Array
from .editor import GraphEditor
from .file import open_graph
from .forms import second_columns
from .index import GraphIndex, is_ml, is_operator
from .labels import LabelReader

_TWO = 2


class Unpacked(Struct, frozen=True):
    """An output that was a map or a sequence, and how the original's answer becomes the tensor."""

    keys: tuple[str | int, ...]
    columns: int
    unpack: Callable[[Any], Array]
    note: str


def unpack_containers(model: onnx.ModelProto, path: Path) -> dict[str, Unpacked]:
    """Replace each output of ``model`` that is a map or a sequence by a tensor of its name.

    Raises `BundleError` for a sequence of something else than matrices of two columns.
    """
    index = GraphIndex(model)
    containers = [
        (output, made)
        for output in model.graph.output
        if not output.type.HasField("tensor_type")
        and (made := _container(index, output.name)) is not None
    ]
    if not containers:
        return {}
    editor = GraphEditor(model, path)
    found: dict[str, Unpacked] = {}
    for output, made in containers:
        if is_ml(made, "ZipMap"):
            keys = LabelReader(index).zipped(made)
            matrix, entry = made.input[0], _zipped(output.name, keys)
        else:
            _check_pairs(model, index, made, output.name, path)
            matrix, entry = second_columns(editor, made.input), _sequence(output.name, made.input)
        found[output.name] = entry
        editor.redefine(output.name, matrix)
        output.ClearField("type")  # it is inferred: converters state that of others
    editor.drop_unused()
    return found


def as_it_is(answer: Any) -> Array:
    """Return an answer that is a tensor already."""
    array: Array = answer
    return array


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

    return Unpacked(
        keys, len(keys), unpack, f"ZipMap removed: {shown(name)} is the matrix that went into it."
    )


def _sequence(name: str, parts: Sequence[str]) -> Unpacked:
    def unpack(answer: Any) -> Array:
        return np.stack([np.asarray(pair)[:, 1] for pair in answer], axis=1)

    note = (
        f"The sequence {shown(name)} became one matrix: a column for each of {len(parts)} labels, "
        "with the probability of its second class."
    )
    return Unpacked((), len(parts), unpack, note)


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
