"""An index of a graph: which node makes a value, which values are constant.

It only reads, and only the outermost graph: what is in the branches of an If or in a function is
not followed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...model.errors import BundleError, shown

ML = "ai.onnx.ml"
"""The domain of the operators of classic machine learning: trees, labels, ZipMap."""
DEFAULT_DOMAINS = ("", "ai.onnx")
_LARGEST_CONSTANT = 100_000


class GraphIndex:
    """The nodes of a model by what they make."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._producers: dict[str, tuple[onnx.NodeProto, int]] = {}
        for node in model.graph.node:
            for index, name in enumerate(node.output):
                if name:
                    self._producers.setdefault(name, (node, index))
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._arrays: dict[str, NDArray[Any] | None] = {}
        self.opset = opset_of(model, DEFAULT_DOMAINS)

    def producer(self, name: str) -> tuple[onnx.NodeProto, int] | None:
        """Return the node that makes a value, and which of its outputs it is; None for others."""
        return self._producers.get(name)

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return a value that is the same for every input; None for others, and for huge ones."""
        if name not in self._arrays:
            self._arrays[name] = self._array(name)
        return self._arrays[name]

    def _array(self, name: str) -> NDArray[Any] | None:
        tensor = self._constants.get(name)
        if tensor is None:
            made = self._producers.get(name)
            if made is None or not is_operator(made[0], "Constant"):
                return None
            tensor = attribute(made[0], "value")
            if tensor is None:  # a number of its own
                numbers = ("value_float", "value_floats", "value_int", "value_ints")
                found = [attribute(made[0], number) for number in numbers]
                return next((np.asarray(each) for each in found if each is not None), None)
        if not isinstance(tensor, TensorProto) or _is_huge(tensor):
            return None
        try:
            array: NDArray[Any] = numpy_helper.to_array(tensor)
        except Exception:  # its bytes are fewer than its shape says, or of an unknown type
            return None
        return array


def _is_huge(tensor: TensorProto) -> bool:
    size = 1
    for dimension in tensor.dims:
        size *= max(dimension, 1)
        if size > _LARGEST_CONSTANT:
            return True
    return False


def opset_of(model: onnx.ModelProto, domains: tuple[str, ...]) -> int:
    """Return the version of the operators of a domain that a model uses; 0 if it names none."""
    return max((each.version for each in model.opset_import if each.domain in domains), default=0)


def is_operator(node: onnx.NodeProto, *names: str) -> bool:
    """Return True if a node is one of ONNX's own operators of these names."""
    return node.domain in DEFAULT_DOMAINS and node.op_type in names


def is_ml(node: onnx.NodeProto, *names: str) -> bool:
    """Return True if a node is one of the operators of machine learning of these names."""
    return node.domain == ML and node.op_type in names


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return one attribute of a node, in proportion to that attribute alone."""
    for each in node.attribute:
        if each.name == name and not each.ref_attr_name:
            return helper.get_attribute_value(each)
    return default


def count_in(node: onnx.NodeProto, *names: str) -> int:
    """Return how many labels there are in the first attribute of ``names`` that has any."""
    counts = {each.name: len(each.strings) or len(each.ints) for each in node.attribute}
    return next((counts[name] for name in names if counts.get(name)), 0)


def labels_in(node: onnx.NodeProto, *names: str) -> tuple[str | int, ...]:
    """Return the labels in the first attribute of ``names`` that has any."""
    for name in names:
        found = attribute(node, name)
        if found and isinstance(found, list):
            return tuple(_label(each) for each in found)
    return ()


def _label(content: Any) -> str | int:
    if isinstance(content, int):
        return content
    try:
        return content if isinstance(content, str) else bytes.decode(content)
    except (UnicodeDecodeError, TypeError) as error:
        raise BundleError(
            f"The graph has a label that is no string of UTF-8: {shown(repr(content[:20]))}."
            if isinstance(content, bytes)
            else "The graph has a label that is neither a string nor an integer."
        ) from error
