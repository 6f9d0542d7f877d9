"""Exported programs: load a ``.pt2`` file, run it, and export it to ONNX.

Torch loads the safe copy made by `archive`, and runs the form made by `functional`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...model.errors import BundleError, first_line, shown
from ...model.signature import DTYPES, MAX_RANK, Array, Tensors, TensorSpec
from ..network import OPSET, quiet_exporter
from ..rows import Rows, run_in_parts
from ..source import GraphOutput, GraphSource
from .archive import safe_archive
from .calling import Calling
from .functional import functional

if TYPE_CHECKING:
    import onnx

_ROWS = 256
"""The most rows that are passed to the original at once, if it takes any number."""
_MAX_ROWS = 10_000
_PLACE = re.compile(r"\*args\[(\d{1,4})\]\.shape\[(\d+)\]")
"""The place in which torch finds a dimension that is out of its range."""
DATATYPES = {
    torch.bool: "BOOL",
    **{getattr(torch, f"uint{bits}"): f"UINT{bits}" for bits in (8, 16, 32, 64)},
    **{getattr(torch, f"int{bits}"): f"INT{bits}" for bits in (8, 16, 32, 64)},
    **{getattr(torch, f"float{bits}"): f"FP{bits}" for bits in (16, 32, 64)},
    torch.bfloat16: "BF16",
}


@dataclass(frozen=True, slots=True)
class _Program:
    """A program that is safe to run, and the values that its graph declares for its tensors."""

    path: Path
    exported: torch.export.ExportedProgram
    calling: Calling
    given: tuple[torch.Tensor, ...]
    returned: tuple[torch.Tensor, ...]


def open_program(path: Path) -> GraphSource:
    """Read an exported program of any tensors, and export it to ONNX.

    Nothing in the file is executed but operators on tensors. Inputs are called as in the model's
    ``forward``, outputs as the keys of the dict or the fields of the class that it returns, or
    ``output``, or ``output_0`` and so on. Raises `BundleError`, which says what is wrong with the
    file, or with the program in it.
    """
    program = _load(path)
    calling = program.calling
    inputs = _specs(calling.inputs, program.given, f"{path} takes")
    outputs = _specs(calling.outputs, program.returned, f"{path} returns")
    graph = _graph(program)
    rows = _rows(program)
    with quiet_exporter():
        module = program.exported.module()

    def run(tensors: Tensors) -> Tensors:
        with torch.inference_mode():
            answers = module(*(as_torch(tensors[spec.name], spec.datatype) for spec in inputs))
        return {name: as_numpy(a) for name, a in zip(calling.outputs, answers, strict=True)}

    def ask(tensors: Tensors) -> Tensors:
        try:
            return run_in_parts(run, rows, _arrays(inputs, tensors))
        except BundleError as error:
            raise BundleError(f"{path} {error}") from None
        except Exception as error:  # torch's exceptions have no common base
            said = _PLACE.sub(
                lambda place: f"dimension {place[2]} of {shown(calling.inputs[int(place[1])])}",
                first_line(error),
            )
            raise BundleError(f"{path} can't be run: {said}.") from error

    kinds = tuple(GraphOutput(spec) for spec in outputs)
    return GraphSource(path, graph, inputs, kinds, ask, calling.notes)


def as_torch(array: Array, datatype: str) -> torch.Tensor:
    """Return an array of ``datatype`` as a tensor, which shares its memory where it can."""
    tensor = torch.from_numpy(array)
    return tensor.bfloat16() if datatype == "BF16" else tensor


def as_numpy(tensor: torch.Tensor) -> Array:
    """Return a tensor as the array that holds its values."""
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def _load(path: Path) -> _Program:
    archive = safe_archive(path)
    with quiet_exporter():
        try:
            program = torch.export.load(archive.content)
        except Exception as error:  # torch raises various exceptions for what it can't rebuild
            raise BundleError(
                f"{path} was written by torch {archive.torch} and can't be loaded by torch "
                f"{torch.__version__}: {first_line(error)}."
            ) from error
        try:
            program = functional(program, path)
        except BundleError:
            raise
        except Exception as error:  # mostly for sizes that don't fit each other
            raise BundleError(
                f"{path} can't be traced by torch {torch.__version__}: {first_line(error)}."
            ) from error
    given, returned = _values(program, program.graph_signature.user_inputs), _returned(program)
    if len(given) != len(archive.calling.inputs) or len(returned) != len(archive.calling.outputs):
        raise BundleError(f"{path} is malformed: its graph doesn't match its signature.")
    return _Program(path, program, archive.calling, given, returned)


def _values(
    program: torch.export.ExportedProgram, names: Sequence[Any]
) -> tuple[torch.Tensor, ...]:
    """Return the values that the graph declares for ``names``, as tensors without numbers."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    found = tuple(values.get(name) for name in names)
    return tuple(value for value in found if isinstance(value, torch.Tensor))


def _returned(program: torch.export.ExportedProgram) -> tuple[torch.Tensor, ...]:
    return _values(program, program.graph_signature.user_outputs)


def _specs(
    names: Sequence[str], values: Sequence[torch.Tensor], does: str
) -> tuple[TensorSpec, ...]:
    """Return names, datatypes and shapes as they are served; ``does`` is for messages."""
    specs = []
    for name, value in zip(names, values, strict=True):
        datatype = DATATYPES.get(value.dtype)
        if datatype is None:
            raise BundleError(
                f"{does} {shown(name)} as {value.dtype}, and only tensors of "
                f"{', '.join(DATATYPES.values())} are served (model.float() converts a model)."
            )
        if value.ndim > MAX_RANK:
            raise BundleError(
                f"{does} {shown(name)} with {value.ndim} dimensions; at most {MAX_RANK} are served."
            )
        shape = tuple(_size(size) for size in value.shape)
        specs.append(TensorSpec(name, datatype, shape))
    return tuple(specs)


def _size(size: Any) -> int:
    """Return a dimension that the graph fixes, or -1."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression) if expression.is_Integer else -1


def _rows(program: _Program) -> Rows | None:
    """Return which dimensions are the rows: the first ones that vary together, or are alike."""
    ranked: list[Any] = [value.shape[0] for value in program.given if value.ndim]
    varying = next((size for size in ranked if _size(size) < 0), None)
    if varying is not None:
        allowed = program.exported.range_constraints.get(varying.node.expr)
        if allowed is None:  # a multiple of another dimension, for instance
            return None
        least = int(max(min(allowed.lower, _MAX_ROWS), 1))
        most = int(allowed.upper) if allowed.upper < 2**31 else None
        key = str(varying.node.expr)
    elif len(ranked) == len(program.given) and len(set(map(_size, ranked))) == 1:
        least = most = _size(ranked[0])
        key = str(least)
    else:
        return None
    if least < 1:
        return None

    def having(names: Sequence[str], values: Sequence[torch.Tensor]) -> frozenset[str]:
        return frozenset(n for n, v in zip(names, values, strict=True) if v.ndim and _of(v) == key)

    return Rows(
        having(program.calling.inputs, program.given),
        having(program.calling.outputs, program.returned),
        least,
        most,
    )


def _of(value: torch.Tensor) -> str:
    """Return the expression of the first dimension of ``value``."""
    size: Any = value.shape[0]
    return str(size) if isinstance(size, int) else str(size.node.expr)


def _arrays(inputs: Sequence[TensorSpec], tensors: Tensors) -> Tensors:
    """Return ``tensors`` as the program takes them. Raises `BundleError` for other ones."""
    names = {spec.name for spec in inputs}
    if set(tensors) != names:
        raise BundleError(
            f"takes {', '.join(shown(name) for name in sorted(names))}, not "
            f"{', '.join(shown(name) for name in sorted(tensors)) or 'nothing'}."
        )
    arrays = {}
    for spec in inputs:
        array = np.asarray(tensors[spec.name])
        dtype = DTYPES[spec.datatype]
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            raise BundleError(f"takes {shown(spec.name)} as {spec.datatype}, not as {array.dtype}.")
        if array.ndim != len(spec.shape) or not spec.accepts((*spec.shape[:1], *array.shape[1:])):
            raise BundleError(
                f"takes {shown(spec.name)} of shape {list(spec.shape)}, not {list(array.shape)}."
            )
        arrays[spec.name] = np.array(array, dtype, order="C")  # a copy: torch shares memory
    return arrays


def _graph(program: _Program) -> onnx.ModelProto:
    """Export ``program`` to ONNX, with the names of its calling convention."""
    path, calling = program.path, program.calling
    try:
        with quiet_exporter():
            exported = torch.onnx.export(
                program.exported, (), opset_version=OPSET, dynamo=True, verbose=False
            )
    except Exception as error:  # an operator may have no counterpart
        raise BundleError(
            f"{path} can't be exported to ONNX: {first_line(_cause(error))}. If you can "
            "export the model to ONNX yourself, pack that file."
        ) from error
    assert exported is not None  # dynamo=True always returns a program
    _rename(exported.model.graph, calling)
    return exported.model_proto


def _cause(error: BaseException) -> BaseException:
    """Return the first of the errors that led to ``error``: the last one is a page of advice."""
    for _ in range(10):
        error = error.__cause__ or error
    return error


def _rename(graph: Any, calling: Calling) -> None:
    """Call the inputs and outputs of a graph of onnx_ir as ``calling`` has it."""
    wanted = {*calling.inputs, *calling.outputs}
    ends = [*zip(graph.inputs, calling.inputs, strict=True)]
    ends += zip(graph.outputs, calling.outputs, strict=True)
    ours = {id(value) for value, _ in ends}
    inner = (value for node in graph.all_nodes() for value in node.outputs)
    values = [*inner, *graph.initializers.values(), *(value for value, _ in ends)]
    for number, value in enumerate(values):  # none may have a name that another one is to have
        if value.name in wanted or id(value) in ours:
            value.name = f"{value.name}__{number}"
    for value, name in ends:
        value.name = name
