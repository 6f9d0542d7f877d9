"""The network of an archive, as TorchServe's handlers load it: TorchScript, or a class in Python
and the state dictionary of it.

To load it runs the archive's program. So it is only called where the owner allowed that, in a
process that may end (`app.model.isolation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from ...model.code.modules import OwnModules
from ...model.code.torchserve.modules import provided_modules
from ...model.code.torchserve.util import list_classes_from_module
from ...model.errors import BundleError, first_line, listed, shown
from ...model.signature import Tensors, TensorSpec
from ..programs.module import exported
from ..programs.program import DATATYPES, as_numpy
from ..programs.torchscript import open_torchscript
from ..source import THE_ONLY_INPUT, GraphOutput, GraphSource
from .container import Unpacked
from .torchserve import TorchServeModel

_INPUT, _OUTPUT = "input", "output"
_SCRIPT = ".pt"
"""The suffix of a serialized file that TorchServe takes for TorchScript."""


def open_network(model: TorchServeModel, unpacked: Unpacked, shape: tuple[int, ...]) -> GraphSource:
    """Return the network of an archive, for one tensor of floats with rows of ``shape``.

    Raises `BundleError`; its messages name files where they were unpacked to.
    """
    if model.model_file:
        return _of_module(open_eager(model, unpacked), unpacked, model, shape)
    path = script_of(model, unpacked)
    try:
        return open_torchscript(path, {THE_ONLY_INPUT: _example(1, shape).numpy()})
    except BundleError as error:
        raise BundleError(f"{error} {_given(shape)}") from error


def script_of(model: TorchServeModel, unpacked: Unpacked) -> Path:
    """Return the TorchScript of an archive without a model file. Raises `BundleError`."""
    if not model.serialized_file:
        raise BundleError("its manifest names no network (serializedFile, modelFile).")
    path = unpacked.directory / model.serialized_file
    if path.suffix != _SCRIPT:
        raise BundleError(
            f"its network is {shown(model.serialized_file)}, and what is taken is TorchScript "
            f"({_SCRIPT}), or a model file with a state dictionary. Pack the network itself, with "
            "steps in a features file (--features)."
        )
    return path


def _given(shape: tuple[int, ...]) -> str:
    return f"Its handler gives it FP32 of [N, {', '.join(map(str, shape))}]."


def _example(rows: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(rows, *shape, generator=torch.Generator().manual_seed(0))


def open_eager(model: TorchServeModel, unpacked: Unpacked) -> torch.nn.Module:
    """Return an object of the one class in a model file, with the weights of the archive.

    Of those only tensors are read: a pickle's program doesn't run. Raises `BundleError`.
    """
    file = model.model_file
    place = unpacked.directory / file
    sources = {
        PurePath(name).stem: (unpacked.directory / name).read_bytes()
        for name in unpacked.files
        if name.endswith(".py")
    }
    modules = OwnModules(sources, unpacked.directory, provided_modules())
    try:
        with modules.importable():
            classes = list_classes_from_module(modules.load(file.partition(".")[0]))
            if len(classes) != 1:
                names = listed(each.__name__ for each in classes)
                raise BundleError(f"{place} must have one class, the model, and has {names}.")
            module = classes[0]()
    except ModuleNotFoundError as error:
        raise BundleError(
            f"{place} can't be run: {first_line(error)}. Install that to pack it; to serve it, it "
            "isn't needed."
        ) from error
    except BundleError:
        raise
    except Exception as error:  # the archive's code raises what it likes
        raise BundleError(f"{place} can't be run: {first_line(error)}.") from error
    if not isinstance(module, torch.nn.Module):
        raise BundleError(f"{place}: its class is no torch.nn.Module.")
    if model.serialized_file:
        _load_state(module, unpacked.directory / model.serialized_file)
    return module.eval().requires_grad_(False)


def _load_state(module: torch.nn.Module, path: Path) -> None:
    try:
        module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises various exceptions for what it can't read
        raise BundleError(
            f"{path} is no state dictionary of the model: {first_line(error)}."
        ) from error


class _OfOneTensor(torch.nn.Module):
    """A model that is given one tensor, whatever its argument is called."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tensor: torch.Tensor) -> Any:
        return self.inner(tensor)


def _of_module(
    inner: torch.nn.Module, unpacked: Unpacked, model: TorchServeModel, shape: tuple[int, ...]
) -> GraphSource:
    path = unpacked.directory / model.model_file
    module = _OfOneTensor(inner).eval()

    def run(tensor: torch.Tensor) -> torch.Tensor:
        try:
            with torch.inference_mode():
                answer = module(tensor)
        except Exception as error:  # torch's exceptions have no common base
            raise BundleError(
                f"{path} can't be run: {first_line(error)}. {_given(shape)}"
            ) from error
        if not isinstance(answer, torch.Tensor) or answer.dtype not in DATATYPES:
            raise BundleError(f"{path} returns a {_called(answer)}, and no tensor of floats.")
        return answer

    def ask(tensors: Tensors) -> Tensors:
        return {_OUTPUT: as_numpy(run(torch.from_numpy(np.array(tensors[_INPUT], np.float32))))}

    example = _example(2, shape)
    answer = run(example)
    graph = exported(
        module,
        [example],
        inputs=[_INPUT],
        output=_OUTPUT,
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        path=path,
    )
    spec = TensorSpec(_OUTPUT, DATATYPES[answer.dtype], _any_rows(answer.shape))
    return GraphSource(
        path, graph, (TensorSpec(_INPUT, "FP32", (-1, *shape)),), (GraphOutput(spec),), ask
    )


def _called(answer: Any) -> str:
    return (
        f"tensor of {answer.dtype}" if isinstance(answer, torch.Tensor) else type(answer).__name__
    )


def _any_rows(shape: Sequence[int]) -> tuple[int, ...]:
    return (-1, *shape[1:]) if shape else ()
