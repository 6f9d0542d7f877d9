"""Read an ONNX file as a graph of tensors, with all that the graph itself says of its outputs.

It runs in a child process (`app.model.isolation`): the file may mean harm.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from msgspec import structs

from ...model.errors import BundleError, first_line, shown
from ...model.onnx_runtime import DATATYPES
from ...model.signature import DTYPES, MAX_TENSORS, Tensors, TensorSpec
from ..source import GraphOutput, GraphSource
from .border import about_bfloat16, carry_bfloat16
from .containers import Unpacked, as_it_is, unpack_containers
from .file import load_graph, open_graph
from .index import GraphIndex, attribute, is_ml, is_operator
from .kinds import KindReader
from .labels import MAX_STEPS, LabelReader, Labels, agreed

_MATRIX = 2
_TWO_CLASSES = 2
_LARGEST_DIMENSION = 2**31


def read_graph(path: Path) -> GraphSource:
    """Read an ``.onnx`` file, with the weights in files beside it. Raises `BundleError`."""
    original = load_graph(path)
    if len(original.graph.output) > MAX_TENSORS:
        raise BundleError(
            f"{path} has {len(original.graph.output):,} outputs, which exceeds the limit of "
            f"{MAX_TENSORS:,}."
        )
    carried = carry_bfloat16(original, path)
    model = onnx.ModelProto()
    model.CopyFrom(original)
    unpacked = unpack_containers(model, path)
    try:
        session = tensors = open_graph(model, path)
    except BundleError as error:
        raise BundleError(f"{error}{about_bfloat16(model, error)}") from error
    notes = [each.note for each in unpacked.values()]
    if unpacked:
        try:
            session = open_graph(original, path)
        except BundleError:  # its ZipMap takes neither FP64 nor three dimensions
            notes.append(
                "ONNX Runtime doesn't take the file as it came: it was run without the above."
            )
            unpacked = {
                name: structs.replace(each, unpack=as_it_is) for name, each in unpacked.items()
            }
    inputs = tuple(_spec(each, "input", path, carried) for each in tensors.get_inputs())
    specs = [_spec(each, "output", path, carried) for each in tensors.get_outputs()]
    index = GraphIndex(model)
    try:
        outputs, assumed = _with_evidence(index, specs, inputs, unpacked)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None
    return GraphSource(
        path,
        model,
        inputs,
        outputs,
        lambda given: _ask(session, given, unpacked, path),
        (*notes, *assumed),
    )


def _ask(session: Any, given: Tensors, unpacked: Mapping[str, Unpacked], path: Path) -> Tensors:
    """Run the original, and return its answers as tensors."""
    names = [each.name for each in session.get_outputs()]
    try:
        found = dict(zip(names, session.run(names, dict(given)), strict=True))
        return {
            name: unpacked[name].unpack(answer) if name in unpacked else answer
            for name, answer in found.items()
        }
    except Exception as error:  # a pybind exception with no public base
        raise BundleError(f"{path} can't be run: {first_line(error)}.") from error


def _spec(tensor: Any, role: str, path: Path, carried: Collection[str]) -> TensorSpec:
    """Return an input or output as ONNX Runtime describes it, but for those that are ``carried`` in
    another datatype than BF16.
    """
    datatype = "BF16" if tensor.name in carried else DATATYPES.get(tensor.type)
    if datatype is None:
        raise BundleError(
            f"{path}: the {role} {shown(tensor.name)} is {tensor.type[:80]}, and only tensors of "
            f"{', '.join(DTYPES)} are served."
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in tensor.shape)
    return TensorSpec(tensor.name, datatype, shape)


def _with_evidence(
    index: GraphIndex,
    specs: Sequence[TensorSpec],
    inputs: Sequence[TensorSpec],
    unpacked: Mapping[str, Unpacked],
) -> tuple[tuple[GraphOutput, ...], list[str]]:
    """Return the outputs with what the graph says of them, and notes of what was assumed."""
    labels, kinds = LabelReader(index), KindReader(index)
    found = [
        _output(
            index,
            _true_shape(spec, inputs, index, unpacked.get(spec.name)),
            labels,
            kinds,
            unpacked.get(spec.name),
        )
        for spec in specs
    ]
    named = [
        (output, names)
        for output, names in found
        if output.kind == "label" and names.names and not names.is_of_column
    ]
    if len(named) != 1:  # none, or of several models in one graph, which nobody can match
        return tuple(output for output, _ in found), []
    return _matched(index, found, named[0])


def _output(
    index: GraphIndex,
    spec: TensorSpec,
    labels: LabelReader,
    kinds: KindReader,
    unpacked: Unpacked | None,
) -> tuple[GraphOutput, Labels]:
    if spec.is_float:
        names = labels.of_columns(spec.name)
        if unpacked is not None:
            names = agreed(Labels(unpacked.keys, "ZipMap"), names, spec.name)
        return GraphOutput(spec, names.names, kinds.of(spec.name)), names
    names = labels.of_label(spec.name)
    return GraphOutput(spec, names.names, "label" if names.is_label else ""), names


def _matched(
    index: GraphIndex,
    found: Sequence[tuple[GraphOutput, Labels]],
    named: tuple[GraphOutput, Labels],
) -> tuple[tuple[GraphOutput, ...], list[str]]:
    """Compare the names of a label with those of the columns, or let them name the columns."""
    label, names = named
    outputs = [output for output, _ in found]
    columns = [
        place
        for place, output in enumerate(outputs)
        if output.spec.is_float
        and len(output.spec.shape) == _MATRIX
        and output.kind != "values"
        and output.spec.shape[1] in (-1, len(names.names))
    ]
    if len(columns) != 1:
        return tuple(outputs), []
    place = columns[0]
    output, own = found[place]
    both = agreed(own, names, output.spec.name).names
    kind = output.kind or ("scores" if _is_svm_without_probabilities(index, label) else "")
    outputs[place] = structs.replace(
        output,
        labels=both,
        kind=kind,
        is_reversed=kind == "scores" and _is_svm_of_two_classes(index, output, both),
    )
    assumed = (
        f"The columns of {shown(output.spec.name)} are taken to be in the order of the labels of "
        f"{shown(label.spec.name)}."
    )
    return tuple(outputs), [] if own.names else [assumed]


def _is_svm_without_probabilities(index: GraphIndex, label: GraphOutput) -> bool:
    """Return True if a label is that of a support vector machine that only has scores."""
    node = _behind(index, label.spec.name)
    return node is not None and is_ml(node, "SVMClassifier") and not attribute(node, "prob_a")


def _is_svm_of_two_classes(
    index: GraphIndex, output: GraphOutput, classes: Sequence[str | int]
) -> bool:
    """Return True if an output has the scores of a support vector machine of two classes.

    ONNX Runtime's kernel answers ``[-s, s]`` where a positive ``s`` makes the first one the label:
    https://github.com/microsoft/onnxruntime/blob/v1.20.0/onnxruntime/core/providers/cpu/ml/svmclassifier.cc
    """
    node = _behind(index, output.spec.name)
    return (
        node is not None
        and len(classes) == _TWO_CLASSES
        and is_ml(node, "SVMClassifier")
        and not attribute(node, "prob_a")
        and bool(attribute(node, "vectors_per_class"))
        and attribute(node, "post_transform", b"NONE") == b"NONE"
    )


def _true_shape(
    spec: TensorSpec, inputs: Sequence[TensorSpec], index: GraphIndex, unpacked: Unpacked | None
) -> TensorSpec:
    """Return an output without what converters state of its shape though it isn't so.

    LightGBM's labels are said to be of one row, and a regressor's targets to be one.
    """
    shape = list(spec.shape)
    if unpacked is not None and not shape:  # nothing is stated of it, nor inferred
        shape = [-1, unpacked.columns]
    if shape and shape[0] > 0:
        rows = {each.shape[0] for each in inputs if each.shape}
        if -1 in rows and shape[0] not in rows:
            shape[0] = -1
    targets = _targets(index, spec.name)
    if targets:
        shape = [shape[0] if shape else -1, targets]
    return structs.replace(spec, shape=tuple(shape))


def _targets(index: GraphIndex, name: str) -> int:
    """Return how many targets the regressor behind an output has; 0 where there is none."""
    node = _behind(index, name)
    names = {"TreeEnsembleRegressor": "n_targets", "LinearRegressor": "targets"}
    if node is None or not is_ml(node, *names):
        return 0
    found = attribute(node, names[node.op_type], 1)
    return found if isinstance(found, int) and 0 < found < _LARGEST_DIMENSION else 0


def _behind(index: GraphIndex, name: str) -> onnx.NodeProto | None:
    """Return the node that makes an output, before what only copies it or changes its type."""
    made = index.producer(name)
    for _ in range(MAX_STEPS):
        if made is None or not is_operator(made[0], "Identity", "Cast"):
            break
        made = index.producer(made[0].input[0])
    return None if made is None else made[0]
