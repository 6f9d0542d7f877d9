"""What an output of a graph is, where its operators say so: probabilities, scores, logits, values.

A Softmax is proof, and so is what a classifier's ``post_transform`` says; a number is not. What is
not proven here is asked of the owner.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from ..source import OutputKind
from .forest import leaves_are_distributions
from .index import DEFAULT_DOMAINS, ML, GraphIndex, attribute, count_in, is_ml, is_operator
from .labels import CLASS_LABELS, CLASSIFIERS, is_times_one

MAX_STEPS = 1_000
"""Values that are looked at for one output at most."""
_MAX_DEPTH = 50
_SOFTMAX_OPSET = 13
"""The first opset in which a Softmax is over the last axis unless it says another."""
_ROW_AXES = (1, -1)
_PASSING = ("Identity", "Cast", "Dropout")
_SHAPING = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
_NOT_NEGATIVE = ("Exp", "Sigmoid", "Softmax", "Relu", "Abs", "Sqrt", "ReduceSumSquare")
_TRUTHS = ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Not", "And", "Or")
_KEEPING_SIGN = ("Concat", "Sum", "Add", "Mul", "Div", "Reciprocal", "Transpose")
"""Operators that make nothing negative of what isn't."""
_REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax")
_SELECTING = ("Slice", "Gather")
_REGRESSORS = ("TreeEnsembleRegressor", "LinearRegressor", "SVMRegressor")
_TREE_SOFTMAX, _TREE_LOGISTIC, _TREE_SOFTMAX_ZERO = 1, 2, 3
_BINARY = 2


class KindReader:
    """Finds the kinds of the values of one graph."""

    def __init__(self, index: GraphIndex) -> None:
        self._index = index
        self._steps = 0
        self._classified: dict[str, OutputKind] = {}

    def of(self, name: str) -> OutputKind:
        """Return the kind of a value; empty where the graph doesn't say it."""
        self._steps = 0
        return self._kind(name, 0)

    def _kind(self, name: str, depth: int, *, is_part: bool = False) -> OutputKind:
        """Return the kind of a value, which ``is_part`` of one that has all columns."""
        self._steps += 1
        made = self._index.producer(name)
        if made is None or depth > _MAX_DEPTH or self._steps > MAX_STEPS or not made[0].input:
            return ""
        node, place = made
        passes = is_operator(node, *_PASSING, *_SHAPING) or is_times_one(node, self._index)
        # Alone, one column of several is a probability of nobody knows which class.
        if passes or (is_part and is_operator(node, *_SELECTING)):
            return self._kind(node.input[0], depth + 1, is_part=is_part)
        if node.domain == ML:
            return self._of_ml(node, place, depth)
        of_operator = {
            "Softmax": self._of_softmax,
            "LogSoftmax": self._of_softmax,
            "Sigmoid": self._of_sigmoid,
            "Exp": self._of_exponential,
            "Concat": self._of_columns,
            "Div": self._of_quotient,
            "ReduceMean": self._of_mean,
        }.get(node.op_type if node.domain in DEFAULT_DOMAINS else "")
        return of_operator(node, depth) if of_operator is not None else ""

    def _of_softmax(self, node: onnx.NodeProto, _depth: int) -> OutputKind:
        default = -1 if self._index.opset >= _SOFTMAX_OPSET else 1
        if attribute(node, "axis", default) not in _ROW_AXES:
            return ""
        return "probabilities" if node.op_type == "Softmax" else "logits"

    def _of_sigmoid(self, _node: onnx.NodeProto, _depth: int) -> OutputKind:
        return "probabilities"

    def _of_exponential(self, node: onnx.NodeProto, _depth: int) -> OutputKind:
        return "probabilities" if self._is_log_softmax(node.input[0]) else ""

    def _of_ml(self, node: onnx.NodeProto, place: int, depth: int) -> OutputKind:
        if is_ml(node, *CLASSIFIERS):
            return self._of_classifier(node) if place == 1 else ""
        if is_ml(node, *_REGRESSORS):
            return "values" if _transform(node) == "NONE" else ""
        if is_ml(node, "TreeEnsemble"):
            transform = attribute(node, "post_transform", 0)
            single = attribute(node, "n_targets") == 1
            sums = transform in (_TREE_SOFTMAX, _TREE_SOFTMAX_ZERO) and not single
            return "probabilities" if sums or (transform == _TREE_LOGISTIC and single) else ""
        if is_ml(node, "Normalizer") and attribute(node, "norm", b"MAX") == b"L1":
            return "probabilities" if self._is_not_negative(node.input[0], depth) else ""
        if is_ml(node, "ArrayFeatureExtractor") and len(node.input) == _BINARY:
            return self._of_second_column(node, depth)
        return ""

    def _of_classifier(self, node: onnx.NodeProto) -> OutputKind:
        key = node.output[1]  # many outputs may come from one large forest
        if key not in self._classified:
            self._classified[key] = _classified(node)
        return self._classified[key]

    def _of_second_column(self, node: onnx.NodeProto, depth: int) -> OutputKind:
        """Return the kind of one score of two classes, which is that of the second one."""
        place, source = self._index.constant(node.input[1]), self._index.producer(node.input[0])
        if place is None or place.size != 1 or place.item() != 1 or source is None:
            return ""
        return self._kind(node.input[0], depth + 1) if _classes(source[0]) == _BINARY else ""

    def _of_columns(self, node: onnx.NodeProto, depth: int) -> OutputKind:
        """Return the kind of columns that are put together: that of all, or of p beside 1 - p."""
        if attribute(node, "axis", 1) not in _ROW_AXES:
            return ""
        if len(node.input) == _BINARY and self._is_complement(*node.input):
            return "probabilities"
        return self._shared(node.input, depth)

    def _of_mean(self, node: onnx.NodeProto, depth: int) -> OutputKind:
        """Return the kind of a mean of several classifiers, which are stacked along the first
        axis.
        """
        made = self._index.producer(node.input[0])
        if made is None or not is_operator(made[0], "Concat") or self._axes(node) != [0]:
            return ""
        stacked = attribute(made[0], "axis", 1) == 0
        return self._shared(made[0].input, depth) if stacked else ""

    def _shared(self, names: Sequence[str], depth: int) -> OutputKind:
        """Return the kind that all values have."""
        first: OutputKind = ""
        for place, name in enumerate(names):
            kind = self._kind(name, depth + 1, is_part=True)
            if not kind or (place and kind != first):
                return ""
            first = kind
        return first

    def _is_complement(self, one: str, other: str) -> bool:
        """Return True if ``one`` is 1 - ``other``."""
        made = self._index.producer(one)
        if made is None or not is_operator(made[0], "Sub") or made[0].input[1] != other:
            return False
        minuend = self._index.constant(made[0].input[0])
        return minuend is not None and bool((minuend == 1).all())

    def _is_log_softmax(self, name: str) -> bool:
        """Return True if a value is x - log(sum(exp(x))) of each row."""
        made = self._index.producer(name)
        if made is None or not is_operator(made[0], "Sub"):
            return False
        minuend, subtrahend = made[0].input
        reduced = self._reduction(subtrahend, "ReduceLogSumExp")
        return reduced is not None and reduced.input[0] == minuend and self._is_of_rows(reduced)

    def _of_quotient(self, node: onnx.NodeProto, depth: int) -> OutputKind:
        """Return "probabilities" for what is divided by its sum, or for a mean of probabilities."""
        above, below = node.input
        summed = self._row_sum(below)
        if summed is not None:
            whole = summed.input[0] in (above, *self._summands(above))
            shares = whole and (
                self._is_not_negative(above, depth)
                or self._kind(above, depth + 1) == "probabilities"
            )
            return "probabilities" if shares else ""
        count, parts = self._index.constant(below), self._summands(above)
        if count is None or count.size != 1 or len(parts) != count.item():
            return ""
        return self._shared(parts, depth)

    def _summands(self, name: str) -> Sequence[str]:
        made = self._index.producer(name)
        return made[0].input if made is not None and is_operator(made[0], "Sum", "Add") else ()

    def _row_sum(self, name: str) -> onnx.NodeProto | None:
        """Return the node that sums each row, where ``name`` is that sum, or it and what keeps it
        from 0.
        """
        for candidate in (name, *self._summands(name)[:2]):
            found = self._reduction(candidate, "ReduceSum")
            if found is not None and self._is_of_rows(found):
                return found
        return None

    def _reduction(self, name: str, operator: str) -> onnx.NodeProto | None:
        for _ in range(_MAX_DEPTH):
            self._steps += 1
            made = self._index.producer(name)
            if made is None or self._steps > MAX_STEPS:
                return None
            if is_operator(made[0], operator):
                return made[0]
            if not is_operator(made[0], *_PASSING, *_SHAPING):
                return None
            name = made[0].input[0]
        return None

    def _is_of_rows(self, node: onnx.NodeProto) -> bool:
        """Return True if a reduction is over the columns of each row."""
        return self._axes(node) in ([1], [-1])

    def _axes(self, node: onnx.NodeProto) -> list[int]:
        axes = attribute(node, "axes")
        if axes is None and len(node.input) > 1:
            array = self._index.constant(node.input[1])
            axes = None if array is None else array.ravel().tolist()
        return axes if isinstance(axes, list) else []

    def _is_not_negative(self, name: str, depth: int) -> bool:
        """Return True if no value is below 0, as its operators prove."""
        self._steps += 1
        constant = self._index.constant(name)
        if constant is not None:
            return constant.dtype.kind in "fiub" and bool((constant >= 0).all())
        made = self._index.producer(name)
        if made is None or depth > _MAX_DEPTH or self._steps > MAX_STEPS:
            return False
        node, place = made
        if is_ml(node, *CLASSIFIERS):
            bounded = _transform(node) in ("LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT")
            return place == 1 and (bounded or self._of_classifier(node) == "probabilities")
        as_first = is_operator(node, *_PASSING, *_SHAPING, *_REDUCTIONS, *_SELECTING)
        if as_first or is_ml(node, "ArrayFeatureExtractor", "Normalizer"):
            return self._is_not_negative(node.input[0], depth + 1)
        if is_operator(node, *_KEEPING_SIGN):
            return all(self._is_not_negative(each, depth + 1) for each in node.input)
        return is_operator(node, *_NOT_NEGATIVE, *_TRUTHS)


def _classified(node: onnx.NodeProto) -> OutputKind:
    """Return the kind of the second output of a classifier."""
    transform = _transform(node)
    if transform in ("SOFTMAX", "SOFTMAX_ZERO"):
        return "probabilities"
    if transform in ("LOGISTIC", "PROBIT"):  # of each column; only two are certain to sum to 1
        return "probabilities" if _classes(node) <= _BINARY else "scores"
    if node.op_type == "SVMClassifier":
        return "probabilities" if attribute(node, "prob_a") else "scores"
    if node.op_type == "LinearClassifier":
        return "scores"
    return "probabilities" if leaves_are_distributions(node, _classes(node)) else ""


def _classes(node: onnx.NodeProto) -> int:
    return count_in(node, *CLASS_LABELS)


def _transform(node: onnx.NodeProto) -> str:
    found = attribute(node, "post_transform", b"NONE")
    return found.decode(errors="replace") if isinstance(found, bytes) else ""
