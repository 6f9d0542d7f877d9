"""Edit a graph: add nodes under new names, move a name to another value, drop what nothing uses.

It knows nothing of what a model means: `forms` has those that are added.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...model.errors import BundleError, shown
from ...model.signature import TensorSpec, carrier
from .file import graphs_of
from .index import DEFAULT_DOMAINS, ML, is_ml, opset_of

_OLDEST_OPSET = 7
"""The first opset whose operators broadcast as numpy does, and the first that ONNX Runtime takes
for certain."""
_NEW_OPSET = 18
_NEW_ML_OPSET = 3
_LABELS_ML_OPSET = 2
"""The first version of the operators of machine learning with a LabelEncoder of keys and values."""
_ELEMENT_TYPES = {
    "BOOL": TensorProto.BOOL,
    **{f"UINT{bits}": TensorProto.DataType.Value(f"UINT{bits}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": TensorProto.DataType.Value(f"INT{bits}") for bits in (8, 16, 32, 64)},
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


class GraphEditor:
    """Edits ``model`` in place; ``path`` is for messages.

    Each method takes time in proportion to what it changes, but for `drop_unused`.
    """

    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        self.model = model
        self.path = path
        self._front: list[onnx.NodeProto] = []
        self._numbers: Counter[str] = Counter()
        self._index()

    def new_name(self, hint: str) -> str:
        """Return a name that no value has."""
        name = hint
        while name in self._taken:
            # Where the last search for it ended: a graph may have any number of such names.
            self._numbers[hint] += 1
            name = f"{hint}_{self._numbers[hint]}"
        self._taken.add(name)
        return name

    def add(
        self,
        operator: str,
        inputs: Sequence[str],
        hint: str,
        *,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node behind all others, and return the name of its output."""
        name = self.new_name(hint)
        self._append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def constant(self, array: NDArray[Any], hint: str) -> str:
        """Add a constant, and return its name."""
        name = self.new_name(hint)
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def replace_input(self, name: str, hint: str) -> str:
        """Let all nodes that use the input ``name`` use another value, and return its name.

        The caller adds the nodes that make it, by `put_in_front`.
        """
        fresh = self.new_name(hint)
        self._rename(name, fresh)
        return fresh

    def put_in_front(
        self, operator: str, inputs: Sequence[str], output: str, **attributes: Any
    ) -> None:
        """Add a node before all others; ``inputs`` are inputs, constants, or made in front."""
        self.needs_opset(_OLDEST_OPSET, operator)
        node = helper.make_node(operator, inputs, [output], **attributes)
        self._front.append(node)
        self._note(node)

    def redefine(
        self, name: str, value: str, operator: str = "Identity", **attributes: Any
    ) -> None:
        """Let ``name``, which is that of an output, be that of what ``operator`` makes of
        ``value``.
        """
        fresh = self.new_name(name)
        self._rename(name, fresh)
        source = fresh if value == name else value
        self._append(helper.make_node(operator, [source], [name], **attributes))

    def set_outputs(self, outputs: Sequence[tuple[str, TensorSpec]]) -> None:
        """Let the graph have exactly these outputs: each a value, and what it is called.

        Raises `BundleError` if an output would be called as another input.
        """
        fixed = {each.name for each in self.model.graph.input}
        fixed.update(each.name for each in self.model.graph.initializer)
        moved: dict[str, str] = {}
        for value, spec in outputs:
            if value == spec.name or spec.name not in self._taken:
                continue
            if spec.name in fixed:
                raise BundleError(
                    f"{self.path} has an input or a weight called {shown(spec.name)}, as an output "
                    "would be; rename it in the graph."
                )
            moved[spec.name] = self.new_name(spec.name)
            self._rename(spec.name, moved[spec.name])
        del self.model.graph.output[:]
        for value, spec in outputs:
            source = moved.get(value, value)
            if source != spec.name:
                self._taken.add(spec.name)
                self._append(helper.make_node("Identity", [source], [spec.name]))
            self.model.graph.output.append(_value_info(spec))
        self.drop_unused()

    def set_inputs(self, inputs: Sequence[TensorSpec]) -> None:
        """Let the graph say of its inputs what ``inputs`` do, of the same names: other shapes."""
        specs = {spec.name: spec for spec in inputs}
        for place, each in enumerate(self.model.graph.input):
            if each.name in specs:
                self.model.graph.input[place].CopyFrom(_value_info(specs[each.name]))

    def drop_unused(self) -> None:
        """Remove the nodes and constants that no output needs, and put the others in order."""
        graph = self.model.graph
        nodes = [*self._front, *graph.node]
        makers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
        needed, waiting = set[int](), [each.name for each in graph.output]
        used = set(waiting)
        while waiting:
            place = makers.get(waiting.pop())
            if place is None or place in needed:
                continue
            needed.add(place)
            fresh = _names_used(nodes[place]) - used
            used |= fresh
            waiting += fresh
        kept = [node for place, node in enumerate(nodes) if place in needed]
        weights = [tensor for tensor in graph.initializer if tensor.name in used]
        weight_names = {tensor.name for tensor in graph.initializer}
        inputs = [
            each for each in graph.input if each.name in used or each.name not in weight_names
        ]
        del graph.node[:]
        graph.node.extend(kept)
        if len(weights) < len(graph.initializer):
            del graph.initializer[:], graph.input[:]
            graph.initializer.extend(weights)
            graph.input.extend(inputs)
        self._front.clear()
        self._index()

    def needs_opset(self, version: int, what: str) -> None:
        """Raise `BundleError` if the graph's operators are older than ``what`` needs.

        A graph with none of these operators gets them.
        """
        opset = opset_of(self.model, DEFAULT_DOMAINS)
        if not opset and not self._has_default:
            self.model.opset_import.append(helper.make_opsetid("", _NEW_OPSET))
        elif opset < version:
            raise BundleError(
                f"{self.path} has opset {opset}, but {what} requires {version}; export it with a "
                "newer one."
            )

    @property
    def opset(self) -> int:
        """The version of the operators of ONNX that a node gets which is added now."""
        return opset_of(self.model, DEFAULT_DOMAINS) or _NEW_OPSET

    def has_label_encoder(self) -> bool:
        """Return True if a LabelEncoder of keys and values can be added, after which it can.

        Version 2 of the operators of machine learning changed the LabelEncoder alone, so a graph
        without one is as valid in it.
        """
        version = opset_of(self.model, (ML,))
        if version >= _LABELS_ML_OPSET:
            return True
        if version and any(
            is_ml(node, "LabelEncoder")
            for graph in graphs_of(self.model.graph)
            for node in graph.node
        ):
            return False
        for each in self.model.opset_import:
            if each.domain == ML:
                each.version = _LABELS_ML_OPSET
        if not version:
            self.model.opset_import.append(helper.make_opsetid(ML, _NEW_ML_OPSET))
        return True

    def _append(self, node: onnx.NodeProto) -> None:
        if node.domain in DEFAULT_DOMAINS:
            self.needs_opset(_OLDEST_OPSET, node.op_type)
        self.model.graph.node.append(node)
        self._note(self.model.graph.node[-1])

    def _rename(self, name: str, fresh: str) -> None:
        """Give a value another name, where it is made and used; outputs keep their names."""
        users = self._uses.pop(name, [])
        for node in users:
            for place, used in enumerate(node.input):
                if used == name:
                    node.input[place] = fresh
        self._uses[fresh] += users
        maker = self._makers.pop(name, None)
        if maker is not None:
            place = list(maker.output).index(name)
            maker.output[place] = fresh
            self._makers[fresh] = maker

    def _index(self) -> None:
        self._taken: set[str] = set()
        self._uses: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self._makers: dict[str, onnx.NodeProto] = {}
        self._has_default = False
        for depth, part in enumerate(graphs_of(self.model.graph)):
            for values in (part.input, part.output, part.initializer):
                self._taken.update(value.name for value in values)
            for node in part.node:
                self._note(node, is_inner=depth > 0)

    def _note(self, node: onnx.NodeProto, *, is_inner: bool = False) -> None:
        self._taken.update(node.input)
        self._taken.update(node.output)
        self._has_default |= node.domain in DEFAULT_DOMAINS
        for name in set(node.input):
            self._uses[name].append(node)
        if not is_inner:
            for name in node.output:
                self._makers.setdefault(name, node)


def _names_used(node: onnx.NodeProto) -> set[str]:
    """Return the values that a node uses, in the graphs in it, too."""
    used = set(node.input)
    for attribute in node.attribute:
        for part in (attribute.g, *attribute.graphs):
            for graph in graphs_of(part) if part.node else ():
                used.update(name for inner in graph.node for name in inner.input)
                used.update(value.name for value in graph.output)
    return used


def _value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    shape = [f"{spec.name}_{i}" if size < 0 else size for i, size in enumerate(spec.shape)]
    return helper.make_tensor_value_info(spec.name, _ELEMENT_TYPES[carrier(spec.datatype)], shape)
