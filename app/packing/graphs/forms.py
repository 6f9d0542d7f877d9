"""The forms in which a graph is served: packing adds them, so that serving interprets nothing.

Each function adds one form to the graph of an editor: it takes the name of a value, and returns
that of the new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from ...model.errors import BundleError, shown
from ...model.signature import DTYPES
from ..source import GraphSource
from .editor import GraphEditor
from .file import remove_traces, serialised
from .index import ML

_IR_VERSION = 8
"""The lowest version of the format that is written: from 4 on, weights need not be inputs, too."""
_NULLS_OPSET = 9
"""The first opset that has IsNaN and Where on floats."""
_CLIP_INPUTS_OPSET = 11
"""The first opset in which the bounds of Clip are inputs."""
_UNKNOWN_LABEL = -1
_FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64}


def editing(source: GraphSource) -> GraphEditor:
    """Return an editor of a copy of a model's graph."""
    model = onnx.ModelProto()
    model.CopyFrom(source.graph)
    return GraphEditor(model, source.path)


def softmax(editor: GraphEditor, logits: str) -> str:
    """Add the softmax of each row of a matrix, FP32 or FP64."""
    # Before opset 13 it is over all dimensions from that axis on: for a matrix the same.
    return editor.add("Softmax", [logits], "softmax", axis=1)


def sigmoid(editor: GraphEditor, logits: str) -> str:
    """Add the sigmoid of each number, FP32 or FP64."""
    return editor.add("Sigmoid", [logits], "sigmoid")


def two_probabilities(editor: GraphEditor, probability: str, datatype: str) -> str:
    """Add the columns 1 - p and p of the probability p of the second class, ``(n, 1)``."""
    one = editor.constant(np.ones(1, DTYPES[datatype]), "one")
    other = editor.add("Sub", [one, probability], "other_probability")
    return editor.add("Concat", [other, probability], "two_probabilities", axis=1)


def two_scores(editor: GraphEditor, score: str) -> str:
    """Add the columns -s and s of the decision value s of the second class, ``(n, 1)``."""
    other = editor.add("Neg", [score], "other_score")
    return editor.add("Concat", [other, score], "two_scores", axis=1)


def as_column(editor: GraphEditor, value: str) -> str:
    """Add the form ``(n, 1)`` of a value ``(n,)``."""
    return _reshaped(editor, value, (-1, 1), "column")


def as_vector(editor: GraphEditor, value: str) -> str:
    """Add the form ``(n,)`` of a value ``(n, 1)``."""
    return _reshaped(editor, value, (-1,), "vector")


def as_fp32(editor: GraphEditor, value: str) -> str:
    """Add the FP32 form of numbers of another datatype."""
    return editor.add("Cast", [value], "fp32", to=TensorProto.FLOAT)


def within_0_and_1(editor: GraphEditor, probabilities: str) -> str:
    """Add FP32 probabilities without what rounding adds to 1 or takes from 0.

    The trees of a forest may add up to -1e-7.
    """
    if editor.opset < _CLIP_INPUTS_OPSET:
        return editor.add("Clip", [probabilities], "clipped", min=0.0, max=1.0)
    bounds = [
        editor.constant(np.array(bound, np.float32), name)
        for bound, name in ((0, "lowest_probability"), (1, "highest_probability"))
    ]
    return editor.add("Clip", [probabilities, *bounds], "clipped")


def reversed_columns(editor: GraphEditor, matrix: str) -> str:
    """Add a matrix of two columns with the second one first."""
    order = editor.constant(np.array([1, 0], np.int64), "second_first")
    return editor.add("Gather", [matrix, order], "reversed_columns", axis=1)


def second_columns(editor: GraphEditor, matrices: Sequence[str]) -> str:
    """Add a matrix of the second columns of several matrices, one after the other."""
    one = editor.constant(np.array([1], np.int64), "second_column")
    columns = [editor.add("Gather", [matrix, one], "column", axis=1) for matrix in matrices]
    return editor.add("Concat", columns, "columns", axis=1)


def second_probabilities(editor: GraphEditor, stack: str) -> str:
    """Add the ``(n, labels)`` probabilities of the second classes in a stack ``(labels, n, 2)``.

    scikit-learn's forests and neighbours answer so for several labels.
    """
    one = editor.constant(np.array(1, np.int64), "second_column")
    second = editor.add("Gather", [stack, one], "second_class", axis=2)
    return editor.add("Transpose", [second], "second_probabilities", perm=[1, 0])


def label_index(editor: GraphEditor, label: str, labels: Sequence[str | int], datatype: str) -> str:
    """Add the INT64 index in ``labels`` of each value of a label, in the shape that it has.

    A value that isn't there becomes -1. Raises `BundleError` where the graph can't hold that.
    """
    if datatype == "BYTES":
        keys = [str(each) for each in labels]
        if editor.has_label_encoder():
            return _encoded(editor, label, keys_strings=keys, values_int64s=range(len(keys)))
        return _encoded(editor, label, classes_strings=keys)  # as it was in version 1
    numbers = [each for each in labels if isinstance(each, int)]
    if len(numbers) < len(labels):
        raise BundleError(
            f"{editor.path} has labels of {datatype}, but the first class that is no integer is "
            f"{shown(next(each for each in labels if not isinstance(each, int)))}."
        )
    if not editor.has_label_encoder():
        raise BundleError(
            f"{editor.path} has a LabelEncoder of version 1 of {ML}, which has none for integers; "
            "export it with version 2."
        )
    if datatype != "INT64":
        label = editor.add("Cast", [label], "label_int64", to=TensorProto.INT64)
    return _encoded(editor, label, keys_int64s=numbers, values_int64s=range(len(numbers)))


def fill_nulls(editor: GraphEditor, medians: Mapping[str, NDArray[Any]]) -> None:
    """Let ``medians`` of the columns, by the names of float inputs, replace NaN in them.

    A median that is NaN itself keeps NaN. Raises `BundleError` for an opset without IsNaN, and for
    an input of another datatype than FP32 and FP64.
    """
    types = {each.name: each.type.tensor_type.elem_type for each in editor.model.graph.input}
    for name, values in medians.items():
        if np.isnan(values).all():
            continue
        dtype = _FLOATS.get(types.get(name, 0))
        if dtype is None:
            raise BundleError(
                f"{editor.path}: {shown(name)} is no input of FP32 or FP64, in which a median "
                "could replace null."
            )
        editor.needs_opset(_NULLS_OPSET, "a median")
        constant = editor.constant(values.astype(dtype), "medians")
        filled = editor.replace_input(name, "without_null")
        null = editor.new_name("is_null")
        editor.put_in_front("IsNaN", [name], null)
        editor.put_in_front("Where", [null, constant, name], filled)


def finished(editor: GraphEditor) -> bytes:
    """Return the bytes of the graph: without traces of its machine, in a format that all read.

    Raises `BundleError` if it is too large for one file.
    """
    model = editor.model
    del model.graph.value_info[:]  # they may have a fixed number of rows
    remove_traces(model)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    return serialised(model, editor.path)


def _reshaped(editor: GraphEditor, value: str, shape: tuple[int, ...], hint: str) -> str:
    constant = editor.constant(np.array(shape, np.int64), f"{hint}_shape")
    return editor.add("Reshape", [value, constant], hint)


def _encoded(editor: GraphEditor, label: str, **attributes: Any) -> str:
    lists = {name: list(values) for name, values in attributes.items()}
    return editor.add(
        "LabelEncoder", [label], "label_index", domain=ML, default_int64=_UNKNOWN_LABEL, **lists
    )
