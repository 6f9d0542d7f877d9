"""The graph that is served: the user's, and behind it what makes its answer that of its task."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from msgspec.structs import replace

from ..model.errors import BundleError
from ..model.manifest import TaskName
from ..model.signature import LABEL, PREDICTION, Array, OutputSpec, Role, Tensors, carrier
from .graphs import forms
from .graphs.editor import GraphEditor
from .material import Material
from .roles import Answer, Roles
from .source import GraphOutput, GraphSource

_EXACT_ROLES = ("values", "scores", "embedding")
"""The roles whose numbers stay FP64 where the graph computes them so."""


@dataclass(frozen=True, slots=True)
class Served:
    """The bytes of a graph, and its outputs.

    ``originals`` has, for each output, the name of the one in the user's graph that it is; None for
    one that was made for the task.
    """

    content: bytes
    outputs: tuple[OutputSpec, ...]
    originals: tuple[str | None, ...]


def serve(
    source: GraphSource, task: TaskName, roles: Roles, material: Material, *, any_rows: bool
) -> Served:
    """Return the graph in which the outputs have the ``roles`` that were found.

    Of a model with features, the answer is called as its role. With ``any_rows`` the inputs are
    declared for any number of rows, even if the user's graph declares one. Raises `BundleError` if
    the graph can't be written.
    """
    model = onnx.ModelProto()
    model.CopyFrom(source.graph)
    editor = GraphEditor(model, source.path)
    outputs: list[tuple[str, OutputSpec]] = []
    answer = roles.answer
    if answer is not None:
        outputs.append(_answer(editor, task, answer, keeps_name=not material.features))
        if answer.label is not None:
            outputs.append(_label(editor, task, answer))
    called = {spec.name for _, spec in outputs}
    originals = () if answer is None or material.features else _originals(answer, called)
    for output, role in (*originals, *roles.others):
        spec = OutputSpec(output.spec.name, output.spec.datatype, output.spec.shape, role)
        outputs.append((output.spec.name, spec))
    made = len(outputs) - len(originals) - len(roles.others)
    reserved = {answer.role, PREDICTION, LABEL} if answer and material.features else set()
    outputs = _with_free_names(model, outputs, made, reserved)
    if material.medians:
        forms.fill_nulls(editor, material.medians)
    if any_rows:
        editor.set_inputs(material.inputs)
    names = [value if index >= made else None for index, (value, _) in enumerate(outputs)]
    editor.set_outputs(outputs)
    return Served(forms.finished(editor), tuple(spec for _, spec in outputs), tuple(names))


def _with_free_names(
    model: onnx.ModelProto,
    outputs: list[tuple[str, OutputSpec]],
    made: int,
    reserved: Collection[str],
) -> list[tuple[str, OutputSpec]]:
    """Return the outputs with names that neither another has, nor an input or a weight.

    All but the first ``made``, those of the task, also keep clear of what is ``reserved`` for it.
    """
    taken = {each.name for each in (*model.graph.input, *model.graph.initializer)}
    free = []
    for index, (value, spec) in enumerate(outputs):
        name = spec.name
        while name in taken or (index >= made and name in reserved):
            name += "_"
        taken.add(name)
        free.append((value, replace(spec, name=name)))
    return free


def _originals(answer: Answer, taken: set[str]) -> tuple[tuple[GraphOutput, Role], ...]:
    """Return the graph's own output of which the answer is made, to be served beside it.

    Clients of a model without features know its outputs by their names.
    """
    if answer.output.spec.name in taken:
        return ()
    return ((answer.output, "logits" if answer.from_logits else "tensor"),)


def _answer(
    editor: GraphEditor, task: TaskName, answer: Answer, *, keeps_name: bool
) -> tuple[str, OutputSpec]:
    """Add what makes the answer of an output; return its value, and what it is called."""
    spec, value = answer.output.spec, answer.output.spec.name
    datatype, shape = carrier(spec.datatype), spec.shape
    if datatype == "FP16":
        value, datatype = forms.as_fp32(editor, value), "FP32"
    if len(shape) == 1 and answer.names:
        value, shape = forms.as_column(editor, value), (*shape, 1)
    if answer.output.is_reversed:
        value = forms.reversed_columns(editor, value)
    if answer.from_logits:
        is_softmax = task == "classification" and not answer.is_one_score
        value = (forms.softmax if is_softmax else forms.sigmoid)(editor, value)
    if answer.is_one_score:
        value = (
            forms.two_scores(editor, value)
            if answer.role == "scores"
            else forms.two_probabilities(editor, value, datatype)
        )
    if answer.names:
        shape = (shape[0], len(answer.names))
    if datatype != "FP32" and answer.role not in _EXACT_ROLES:
        value, datatype = forms.as_fp32(editor, value), "FP32"
    if answer.role == "probabilities" and not answer.from_logits and not keeps_name:
        value = forms.within_0_and_1(editor, value)
    name = spec.name if keeps_name and value == spec.name else answer.role
    return value, OutputSpec(name, datatype, shape, answer.role)


def _label(editor: GraphEditor, task: TaskName, answer: Answer) -> tuple[str, OutputSpec]:
    """Add the index of the predicted class; a label of several is 0 or 1 for each as it is."""
    assert answer.label is not None
    spec = answer.label.spec
    value, shape = spec.name, spec.shape
    if task == "classification":
        if len(shape) == 2:
            value, shape = forms.as_vector(editor, value), shape[:1]
        if answer.label_values:
            value = forms.label_index(editor, value, answer.label_values, spec.datatype)
        elif spec.datatype != "INT64":
            raise BundleError(f"{editor.path}: the label is {spec.datatype}, and not INT64.")
    return value, OutputSpec(LABEL, "INT64", shape, "label")


def wanted(served: Served, task: TaskName, answer: Answer | None, found: Tensors) -> Tensors:
    """Return what must be served where the original answers ``found``."""
    made: Mapping[Role, Array] = {} if answer is None else expected(task, answer, found)
    return {
        spec.name: made[spec.role] if name is None else found[name]
        for spec, name in zip(served.outputs, served.originals, strict=True)
    }


def magnitudes(answer: Answer, found: Tensors) -> Array | None:
    """Return, for each row, by what the tolerance of probabilities grows: logits far from zero are
    less exact in float32, and so are their probabilities. None where there are no logits.
    """
    if not answer.from_logits:
        return None
    logits = np.abs(found[answer.output.spec.name].astype(np.float64))
    largest: Array = np.maximum(1.0, logits.reshape(len(logits), -1).max(axis=1))
    return largest


def expected(task: TaskName, answer: Answer, found: Tensors) -> Mapping[Role, Array]:
    """Return what the served graph must answer where the original answers ``found``: its answer,
    as float64, and its label, by their roles.
    """
    values = found[answer.output.spec.name].astype(np.float64)
    if values.ndim == 1 and answer.names:
        values = values[:, np.newaxis]
    if answer.output.is_reversed:
        values = values[:, ::-1]
    with np.errstate(over="ignore", invalid="ignore"):
        if answer.from_logits and (task != "classification" or answer.is_one_score):
            values = 1 / (1 + np.exp(-values))
        elif answer.from_logits:
            shifted = np.exp(values - values.max(axis=1, keepdims=True))
            values = shifted / shifted.sum(axis=1, keepdims=True)
    if answer.is_one_score:
        other = -values if answer.role == "scores" else 1 - values
        values = np.concatenate([other, values], axis=1)
    made: dict[Role, Array] = {answer.role: values}
    if answer.label is not None:
        label = found[answer.label.spec.name]
        if task == "classification":
            label = label.reshape(-1)
        if task == "classification" and answer.label_values:
            places = {value: index for index, value in enumerate(answer.label_values)}
            indices = [places.get(value, -1) for value in label.tolist()]
            label = np.array(indices, dtype=np.int64)
        made["label"] = label
    return made
