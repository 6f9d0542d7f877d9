"""TorchScript: load a file of ``torch.jit.save``, run it, and export it to ONNX.

To load it is to trust it: the program in it runs. So it is only called where the owner
allowed that, in a process that may end (`app.model.isolation`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from ...model.errors import BundleError, first_line, shown
from ...model.signature import DTYPES, Tensors, TensorSpec
from ..network import OPSET, quiet_exporter
from ..source import THE_ONLY_INPUT, GraphOutput, GraphSource
from .program import DATATYPES, as_numpy


@dataclass(frozen=True, slots=True)
class _Script:
    """A loaded module, which takes exactly the tensors ``inputs``."""

    path: Path
    module: Any
    inputs: tuple[str, ...]
    examples: Tensors

    def run(self, tensors: Tensors) -> tuple[torch.Tensor, ...]:
        """Return the tensors that the module answers. Raises `BundleError`."""
        try:
            with torch.inference_mode():
                return _flat(self.module(*self.arguments(tensors)))
        except BundleError as error:
            raise BundleError(f"{self.path} {error}") from None
        except Exception as error:  # a scripted module raises what it likes
            raise BundleError(f"{self.path} can't be run: {last_line(error)}.") from error

    def arguments(self, tensors: Tensors) -> tuple[Any, ...]:
        """Return the positional arguments of a call with ``tensors``."""
        return tuple(torch.from_numpy(np.array(tensors[name])) for name in self.inputs)


def open_torchscript(path: Path, examples: Tensors) -> GraphSource:
    """Load the TorchScript in ``path``, which runs its program, and export it to ONNX.

    ``examples`` has an array for each input, by the names in the module's ``forward``, or one under
    `THE_ONLY_INPUT` for the first. The number
    of rows, the first dimension of the first input, varies where the module answers for another
    number too; all else is as in the examples. Raises `BundleError`.
    """
    script = _load(path, examples)
    given = script.examples
    answers = script.run(given)
    names = ("output",) if len(answers) == 1 else tuple(f"output_{i}" for i in range(len(answers)))
    rows = _rows(given)
    longer = _longer(script, given, rows)
    inputs = tuple(
        _spec(
            path, name, torch.from_numpy(np.array(array)), (0,) if longer and name in rows else ()
        )
        for name, array in given.items()
    )
    outputs = tuple(
        _spec(path, name, answer, tuple(_changed(answer, other)))
        for name, answer, other in zip(names, answers, longer or answers, strict=True)
    )
    axes = {
        spec.name: {
            index: f"{'rows' if not index else spec.name}"
            for index, size in enumerate(spec.shape)
            if size < 0
        }
        for spec in (*inputs, *outputs)
    }
    graph = exported_torchscript(
        script.module,
        script.arguments(given),
        inputs=[spec.name for spec in inputs],
        outputs=[spec.name for spec in outputs],
        axes={name: each for name, each in axes.items() if each},
        path=path,
    )

    def ask(tensors: Tensors) -> Tensors:
        arrays = {}
        for spec in inputs:
            if spec.name not in tensors:
                raise BundleError(f"{path} takes {shown(spec.name)}, which is not given.")
            arrays[spec.name] = np.asarray(tensors[spec.name], DTYPES[spec.datatype])
        return {n: as_numpy(a) for n, a in zip(names, script.run(arrays), strict=True)}

    return GraphSource(
        path, graph, inputs, tuple(map(GraphOutput, outputs)), ask, (_note(longer is not None),)
    )


def _note(varies: bool) -> str:
    rest = "every other dimension is" if varies else "every dimension is"
    return f"TorchScript doesn't say which dimensions vary: {rest} taken to be as in the example."


def load_torchscript(path: Path) -> Any:
    """Return the module in ``path``, whose program may run now. Raises `BundleError`."""
    try:
        module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # torch raises various exceptions for what it can't read
        raise BundleError(
            f"{path} can't be loaded by torch.jit.load: {last_line(error)}."
        ) from error
    with suppress(Exception):  # a frozen module has no mode
        module.eval()
    return module


def _load(path: Path, examples: Tensors) -> _Script:
    module = load_torchscript(path)
    arguments = module.forward.schema.arguments[1:]
    known = [argument.name for argument in arguments]
    if THE_ONLY_INPUT in examples and known:
        examples = {known[0]: examples[THE_ONLY_INPUT]}
    stranger = next((name for name in examples if name not in known), None)
    if stranger is not None or not examples:
        raise BundleError(
            f"{path} takes {', '.join(map(shown, known)) or 'nothing'}; the examples have "
            f"{'nothing' if stranger is None else shown(stranger)}."
        )
    for argument in arguments:
        if argument.name not in examples and not argument.has_default_value():
            raise BundleError(
                f"{path} takes {shown(argument.name)} ({argument.type}), and the examples have no "
                "array of that name. Only tensors can be passed to a model."
            )
    taken = tuple(name for name in known if name in examples)
    given = {name: np.asarray(examples[name]) for name in taken}
    return _Script(path, _calling(module, taken), taken, given)


def _calling(module: Any, names: Sequence[str]) -> Any:
    """Return a scripted module that passes the tensors ``names`` to ``module``, and no more.

    The exporter can't leave out arguments that have a default.
    """
    outer = _Outer(module)
    parameters = ", ".join(f"{name}: Tensor" for name in names)
    passed = ", ".join(f"{name}={name}" for name in names)
    outer.define(f"def forward(self, {parameters}):\n    return self.inner({passed})\n")
    return outer.eval()


class _Outer(torch.jit.ScriptModule):
    """Has another module as a part; ``define`` adds its ``forward``."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner


def _flat(answer: Any) -> tuple[torch.Tensor, ...]:
    """Return the tensors of an answer, in order. Raises `BundleError` for anything else."""
    values = answer if isinstance(answer, tuple | list) else (answer,)
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, tuple | list):
            found += _flat(value)
        elif isinstance(value, torch.Tensor):
            found.append(value)
        else:
            raise BundleError(
                f"returns a {type(value).__name__}; let forward return a tensor or a tuple of "
                "tensors, and save it again."
            )
    if not found:
        raise BundleError("returns no tensor.")
    return tuple(found)


def _rows(given: Tensors) -> frozenset[str]:
    """Return the inputs that have as many rows as the first one that has any."""
    first = next((len(array) for array in given.values() if array.ndim), None)
    return frozenset(n for n, array in given.items() if array.ndim and len(array) == first)


def _longer(
    script: _Script, given: Tensors, rows: frozenset[str]
) -> tuple[torch.Tensor, ...] | None:
    """Return what the module answers for one row more; None if it takes only as many."""
    if not rows or not all(len(given[name]) for name in rows):
        return None
    more = {n: np.concatenate([a, a[-1:]]) if n in rows else a for n, a in given.items()}
    try:
        return script.run(more)
    except BundleError:
        return None


def _changed(answer: torch.Tensor, other: torch.Tensor) -> Iterator[int]:
    """Yield the dimensions in which two answers differ."""
    if answer.ndim == other.ndim:
        for index, (size, changed) in enumerate(zip(answer.shape, other.shape, strict=True)):
            if size != changed:
                yield index


def _spec(path: Path, name: str, value: torch.Tensor, varying: Sequence[int]) -> TensorSpec:
    datatype = DATATYPES.get(value.dtype)
    if datatype is None:
        raise BundleError(
            f"{path}: {shown(name)} is {value.dtype}, and only tensors of "
            f"{', '.join(DATATYPES.values())} are served (model.float() converts a model)."
        )
    shape = tuple(-1 if index in varying else size for index, size in enumerate(value.shape))
    return TensorSpec(name, datatype, shape)


def exported_torchscript(
    module: Any,
    arguments: Sequence[torch.Tensor],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
    path: Path,
) -> onnx.ModelProto:
    """Return a scripted ``module`` as a graph that takes ``arguments`` as ``inputs``.

    ``axes`` are the dimensions that vary, with a name for each. Raises `BundleError`.
    """
    file = io.BytesIO()
    try:
        with quiet_exporter():
            torch.onnx.export(
                module,
                tuple(arguments),
                file,  # type: ignore[arg-type]  # the older exporter takes an open file, too
                dynamo=False,  # the other exporter needs the Python code
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes=axes,
            )
    except Exception as error:  # an operator may have no counterpart
        raise BundleError(
            f"{path} can't be exported to ONNX: {last_line(error)}. If you have the "
            "code of the model, export it from there by torch.export, and pack that."
        ) from error
    return onnx.load_from_string(file.getvalue())


def last_line(error: BaseException) -> str:
    """Return the last line of an error: TorchScript puts a traceback of its own before it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return first_line(ValueError(lines[-1])) if lines else first_line(error)
