"""The names of classes that a graph itself has: of the columns of an output, or of its labels.

They are traced back from an output to constants: the lists of a classifier, of a LabelEncoder, or
those from which converters pick the label of the largest column. No number that the graph answers
is looked at.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from msgspec import Struct, structs
from onnx import TensorProto

from ...model.errors import BundleError, shown
from .index import GraphIndex, attribute, is_ml, is_operator, labels_in

CLASSIFIERS = ("TreeEnsembleClassifier", "LinearClassifier", "SVMClassifier")
CLASS_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")
_SHAPING = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
_ELEMENTWISE = ("Identity", "Softmax", "LogSoftmax", "Sigmoid", "Dropout")
MAX_STEPS = 1_000
"""Values that are followed back from one output at most."""
_MAX_DEPTH = 50
MAX_LABELS = 100_000
"""Labels of one output at most."""


class Labels(Struct, frozen=True):
    """Names of classes, and the operator that has them. None were found if ``names`` is empty."""

    names: tuple[str | int, ...] = ()
    operator: str = ""
    by_index: bool = False
    """True if the value is the index of the largest column, or is looked up by it."""
    is_label: bool = False
    """True if the value is a label, whether or not its names are known."""
    is_of_column: bool = False
    """True if there is a label for each of several columns, so that the names are those of none."""


class LabelReader:
    """Finds the labels of the values of one graph."""

    def __init__(self, index: GraphIndex) -> None:
        self._index = index
        self._lists: dict[str, tuple[str | int, ...]] = {}
        self._found: dict[tuple[str, bool], Labels] = {}
        self._steps = 0
        self._depth = 0

    def of_columns(self, name: str) -> Labels:
        """Return the names of the columns of a value, as the operators that make it have them."""
        for _ in range(MAX_STEPS):
            made = self._index.producer(name)
            if made is None or not made[0].input:
                break
            node, place = made
            if is_ml(node, *CLASSIFIERS) and place == 1:
                return Labels(self._class_labels(node), node.op_type)
            passes = is_operator(node, "Cast", *_ELEMENTWISE) or is_ml(node, "Normalizer")
            if not passes and not is_times_one(node, self._index):
                break
            name = node.input[0]
        return Labels()

    def of_label(self, name: str) -> Labels:
        """Return the labels that a value takes; nothing for a value that is no label."""
        self._steps = 0
        return self._of_label(name)

    def zipped(self, node: onnx.NodeProto) -> tuple[str | int, ...]:
        """Return the keys of a ZipMap, in the order of the columns."""
        return self._listed(node, CLASS_LABELS)

    def _of_label(self, name: str) -> Labels:
        as_text = False
        while (made := self._index.producer(name)) and self._steps < MAX_STEPS:
            self._steps += 1
            node, place = made
            if is_operator(node, *_SHAPING):
                name = node.input[0]
                continue
            if is_operator(node, "Cast"):
                to = attribute(node, "to")
                as_text |= to == TensorProto.STRING
                if to == TensorProto.BOOL:
                    break
                name = node.input[0]
                continue
            # Many outputs may come from one node, whose lists are long.
            key = (node.output[place], as_text)
            found = self._found.get(key)
            if found is None:
                found = self._deeper(node, place)
                if as_text:
                    found = structs.replace(found, names=tuple(str(each) for each in found.names))
                self._found[key] = found
            return found
        return Labels()

    def _deeper(self, node: onnx.NodeProto, place: int) -> Labels:
        if self._depth >= _MAX_DEPTH:
            return Labels()
        self._depth += 1
        try:
            return self._made_label(node, place)
        finally:
            self._depth -= 1

    def _made_label(self, node: onnx.NodeProto, place: int) -> Labels:
        found = Labels()
        if is_ml(node, *CLASSIFIERS) and place == 0:
            found = Labels(self._class_labels(node), node.op_type, is_label=True)
        elif is_ml(node, "LabelEncoder"):
            found = self._encoded(node)
        elif is_ml(node, "ArrayFeatureExtractor") or is_operator(node, "Gather"):
            found = self._picked(node)
        elif is_ml(node, "Binarizer"):
            found = Labels((0, 1), node.op_type, is_label=True, is_of_column=True)
        elif is_operator(node, "ArgMax"):
            found = Labels(is_label=True, by_index=True)
        elif is_operator(node, "Concat"):
            found = self._joined(node)
        return found

    def _joined(self, node: onnx.NodeProto) -> Labels:
        """Return the labels that all parts share: a column for each of several classifiers."""
        parts = [self._of_label(name) for name in node.input]
        if not parts or not all(part.is_label for part in parts):
            return Labels()
        first = parts[0]
        same = all(part.names == first.names for part in parts)
        names = first.names if same else ()
        return Labels(names, first.operator, is_label=True, is_of_column=True)

    def _picked(self, node: onnx.NodeProto) -> Labels:
        """Return the constants among which a node picks by the index of the largest column."""
        if len(node.input) != 2 or not self._is_index(node.input[1]):
            return Labels()
        array = self._index.constant(node.input[0])
        names = () if array is None else _names(array)
        return Labels(names, node.op_type, by_index=True, is_label=True)

    def _encoded(self, node: onnx.NodeProto) -> Labels:
        """Return what a LabelEncoder makes of the labels that go in, or of the indices."""
        before = self._of_label(node.input[0])
        old = labels_in(node, "classes_strings")  # before version 2: its strings and their indices
        keys: tuple[Any, ...] = labels_in(node, "keys_int64s", "keys_strings")
        values: tuple[Any, ...] = labels_in(node, "values_int64s", "values_strings")
        if old:
            keys, values = tuple(range(len(old))), old
            if before.names and isinstance(before.names[0], str):
                keys, values = values, keys
        if len(values) > MAX_LABELS:
            return Labels(is_label=True)
        mapping = dict(zip(keys, values, strict=False))
        wanted = before.names or (tuple(range(len(mapping))) if before.by_index else ())
        names = tuple(mapping[name] for name in wanted if name in mapping)
        if len(set(names)) < max(len(wanted), 1):  # some have no name, or the same one
            return Labels(is_label=True)
        return Labels(names, node.op_type, before.by_index, is_label=True)

    def _is_index(self, name: str) -> bool:
        """Return True if a value is the index of the largest column."""
        while (made := self._index.producer(name)) and self._steps < MAX_STEPS:
            self._steps += 1
            node, _ = made
            if is_operator(node, "ArgMax"):
                return attribute(node, "axis", 0) in (1, -1)
            if not is_operator(node, "Cast", *_SHAPING):
                return False
            name = node.input[0]
        return False

    def _class_labels(self, node: onnx.NodeProto) -> tuple[str | int, ...]:
        return self._listed(node, CLASS_LABELS)

    def _listed(self, node: onnx.NodeProto, names: tuple[str, ...]) -> tuple[str | int, ...]:
        key = node.output[0]  # many outputs may have the labels of one node, which may be long
        if key not in self._lists:
            self._lists[key] = checked(labels_in(node, *names), node.op_type)
        return self._lists[key]


def checked(names: tuple[str | int, ...], operator: str) -> tuple[str | int, ...]:
    """Return labels. Raises `BundleError` if they are too many, or one is there twice."""
    if len(names) > MAX_LABELS:
        raise BundleError(
            f"The graph's {operator} has {len(names):,} labels, which exceeds the limit of "
            f"{MAX_LABELS:,}."
        )
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise BundleError(f"The graph's {operator} has the label {shown(twice)} twice.")
    return names


def agreed(one: Labels, other: Labels, output: str) -> Labels:
    """Return the labels on which two pieces of evidence agree. Raises `BundleError` if they
    don't.
    """
    if not one.names or not other.names:
        return one if one.names else other
    if [str(name) for name in one.names] == [str(name) for name in other.names]:
        return one
    # A classifier inside another may know its classes by their positions alone.
    for positions, words in ((one, other), (other, one)):
        if _are_positions_of(positions.names, words):
            return words
    raise BundleError(
        f"The graph contradicts itself about {shown(output)}: its {one.operator} has the "
        f"labels {_some(one.names)}, and its {other.operator} has {_some(other.names)}."
    )


def _are_positions_of(names: tuple[str | int, ...], words: Labels) -> bool:
    """Return True if ``names`` are 0, 1, ... and ``words`` can only be what is called so."""
    positions = tuple(range(len(words.names)))
    looked_up = words.by_index and {*words.names} != {*positions}
    return names == positions and (isinstance(words.names[0], str) or looked_up)


def is_times_one(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Return True if a node multiplies by 1, as onnxmltools writes it."""
    if not is_operator(node, "Mul") or len(node.input) != 2:
        return False
    factor = index.constant(node.input[1])
    return factor is not None and factor.size == 1 and bool(factor.item() == 1)


def _names(array: np.ndarray[Any, Any]) -> tuple[str | int, ...]:
    """Return the labels in a constant; nothing where two are the same, so that one names none."""
    if array.dtype.kind not in "OUSiub" or array.size > MAX_LABELS:
        return ()
    names = tuple(
        each.decode(errors="replace") if isinstance(each, bytes) else each
        for each in array.ravel().tolist()
    )
    return names if len(set(names)) == len(names) else ()


def _some(names: tuple[str | int, ...]) -> str:
    more = ", ..." if len(names) > 5 else ""
    return ", ".join(shown(name) for name in names[:5]) + more
