"""Functional form: rewrite a program so that it writes into no tensor, before any of it is run.

An operator that writes into a view of a tensor is only as safe as the view. Torch's own
functionalisation turns each into one that computes a new tensor, with the effect on every other
view of the same memory. It can't know of operators that return their input itself without declaring
it: those are found first.
"""

from __future__ import annotations

import operator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch._guards import detect_fake_mode
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils._pytree import tree_leaves

from ...model.errors import BundleError
from . import operators
from .arguments import check_arguments

_ALLOWED = operators.TENSOR | operators.VIEW | operators.CHECK
_ON_SIZES = (
    *(operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.neg),
    *(operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge),
    operator.getitem,
)
_SLOPES = (1 / 8, 1 / 3)
"""The slopes that ``rrelu`` has by default."""
_CONSTANTS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def functional(program: torch.export.ExportedProgram, path: Path) -> torch.export.ExportedProgram:
    """Return ``program`` in functional form. Raises `BundleError` if there is none.

    ``path`` is for messages.
    """
    _check_constants(program, path)
    _check_operators(program, path, _ALLOWED | operators.IN_PLACE)
    _settle_slopes(program, path)
    in_place = any(_name(node) in operators.IN_PLACE for node in program.graph.nodes)
    if in_place:
        _bypass_identities(program)
    given_back = _traced(program, path)
    if not in_place:
        return program
    if given_back:
        raise BundleError(
            f"{path} writes into tensors in place, and uses {given_back[0]!r}, which returned its "
            "input itself: the effect of a write can't be determined. Let the model write nothing "
            "in place (inplace=False, x = x + 1 for x += 1), and export it again."
        )
    program = program.run_decompositions({})
    _check_operators(program, path, _ALLOWED | operators.MADE_BY_TORCH)
    if any(o.kind is not OutputKind.USER_OUTPUT for o in program.graph_signature.output_specs):
        raise BundleError(
            f"{path} writes into its input or its own buffers when it runs; let it work on a copy "
            "(x = x.clone()), call model.eval(), and export it again."
        )
    return program


def _name(node: torch.fx.Node) -> str:
    return str(node.target) if node.op == "call_function" else ""


def _check_operators(
    program: torch.export.ExportedProgram, path: Path, allowed: frozenset[str]
) -> None:
    """Refuse a graph with anything but ``allowed`` operators and operators on sizes."""
    for node in program.graph.nodes:
        if node.op in ("placeholder", "output") or node.target in _ON_SIZES:
            continue
        known = isinstance(node.target, torch._ops.OpOverload) and _name(node) in allowed
        if not known:
            raise BundleError(
                f"{path} uses {str(node.target)[:80]!r}, which is not an operator on tensors that "
                "can be served. If you can export the model to ONNX yourself, pack that file."
            )


def _settle_slopes(program: torch.export.ExportedProgram, path: Path) -> None:
    """Replace an activation that draws its slope only when training by what it is otherwise."""
    for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten.rrelu.default):
        try:
            check_arguments(_name(node), node.args, node.kwargs)
        except BundleError as error:
            raise BundleError(f"{path} {error} Export the model again.") from None
        arguments: list[Any] = [*node.args[:3]]
        given, lower, upper = arguments + [*_SLOPES][len(arguments) - 1 :]
        node.target, node.args = torch.ops.aten.leaky_relu.default, (given, (lower + upper) / 2)
        node.kwargs = {}


def _check_constants(program: torch.export.ExportedProgram, path: Path) -> None:
    """Refuse weights that don't match the graph, which relies on their shape and strides."""
    placeholders = {node.name: node for node in program.graph.find_nodes(op="placeholder")}
    for spec in program.graph_signature.input_specs:
        said: Any = placeholders[spec.arg.name].meta.get("val")
        if spec.kind in _CONSTANTS:
            given = program.state_dict.get(spec.target, program.constants.get(spec.target))
            form = (said.dtype, tuple(said.shape), said.stride())
            if not isinstance(given, torch.Tensor) or form != _form(given):
                raise BundleError(
                    f"{path} is malformed: its graph doesn't match its {str(spec.target)[:80]!r}. "
                    "Export the model again."
                )
        elif isinstance(said, torch.Tensor) and not said.is_contiguous():
            raise BundleError(
                f"{path} was exported with an example that is a view of another tensor; export it "
                "with example.contiguous()."
            )


def _form(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tuple(tensor.shape), tensor.stride()


def _bypass_identities(program: torch.export.ExportedProgram) -> None:
    """Replace uses of an operator that returns its input by that input."""
    for node in list(program.graph.nodes):
        trains = len(node.args) > 2 and node.args[2] is not False  # (x, p, train)
        if _name(node) not in operators.IDENTITIES or trains:
            continue
        given = node.args[0]
        node.replace_all_uses_with(given)
        program.graph.erase_node(node)
        for spec in program.graph_signature.output_specs:
            if spec.arg.name == node.name:
                spec.arg.name = given.name
    program.graph_module.recompile()


class _Tracer(torch.fx.Interpreter):
    """Runs a graph on tensors without values: torch checks the sizes, and `check_arguments` the
    rest. Records which operators returned memory that was passed to them.
    """

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.given_back: list[str] = []

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one operator; see `torch.fx.Interpreter`."""
        name = _name(n)
        if not name:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        check_arguments(name, args, kwargs)
        answer = super().run_node(n)
        if name in operators.TENSOR and _memory(answer) & _memory((args, kwargs)):
            self.given_back.append(name)
        return answer


def _memory(values: Any) -> set[int]:
    return {
        value.untyped_storage()._cdata
        for value in tree_leaves(values)
        if isinstance(value, torch.Tensor)
    }


def _traced(program: torch.export.ExportedProgram, path: Path) -> list[str]:
    """Return the operators that return their input without declaring it, after checking all
    sizes.
    """
    values = [node.meta["val"] for node in program.graph.find_nodes(op="placeholder")]
    mode = detect_fake_mode(values)
    assert mode is not None  # constants of a program other than its weights have no values
    tracer = _Tracer(program.graph_module)
    sizes = mode.shape_env
    unknown = sizes.ignore_fresh_unbacked_symbols() if sizes else nullcontext()
    try:
        with mode, unknown:
            tracer.run(*values)
    except BundleError as error:
        raise BundleError(f"{path} {error} Export the model again.") from None
    return tracer.given_back
