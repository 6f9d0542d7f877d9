"""Runtimes: what executes a network. Each takes arrays by the names of the network's inputs, and
returns arrays by those of its outputs.

A runtime imports its library when it is created, so a process only pays for the one it uses.
Threads are bounded here: a worker is one of several on its machine.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..version import FOR_TORCH
from .errors import BundleError, first_line, listed, shown
from .signature import FEATURES, PROBABILITIES, Signature, Tensors, TensorSpec

if TYPE_CHECKING:
    from .network import Network

# ONNX Runtime sends telemetry to its vendor, from threads that it starts on import and that don't
# survive a fork: a worker then hangs or aborts on exit. This must be set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

RuntimeChoice = Literal["auto", "torch", "onnx"]


class Runtime(Protocol):
    """Executes one network; thread-safe."""

    name: str
    device: str

    def run(self, inputs: Tensors) -> Tensors:
        """Return the outputs of the network for all its ``inputs``."""
        ...

    def time_limit(self, seconds: float) -> AbstractContextManager[None]:
        """Return a context in which runs must end in time: the network may loop forever.

        Raises `BundleError` if they don't.
        """
        ...


class TorchRuntime:
    """Runs a classifier in PyTorch, in inference mode, on ``device``: "cpu", "cuda" or "cuda:N".

    The network is moved there once, here: create it after the fork, which CUDA doesn't survive.
    Matrix products are computed in float32, not in TF32, so that a GPU answers as a CPU does.
    Raises `BundleError` if torch can't use the device, or the network doesn't fit on it.
    """

    name = "torch"

    def __init__(self, network: Network, threads: int, device: str = "cpu") -> None:
        import torch

        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")
        self._torch = torch
        network = network.eval()
        self._network = network if device == "cpu" else _moved(network, device)
        self.device = device

    def run(self, inputs: Tensors) -> Tensors:
        torch, matrix = self._torch, inputs[FEATURES]
        if not matrix.flags.writeable:  # a view of a body, say; torch has no tensor of that kind
            matrix = matrix.copy()
        with torch.inference_mode():
            logits = self._network(torch.from_numpy(matrix).to(self.device))
            probabilities: NDArray[np.float32] = torch.softmax(logits, dim=1).cpu().numpy()
        return {PROBABILITIES: probabilities}

    def time_limit(self, seconds: float) -> AbstractContextManager[None]:
        """Return a context without a limit: our own network has no loop."""
        return nullcontext()


DATATYPES = {
    "tensor(bool)": "BOOL",
    **{f"tensor(uint{bits})": f"UINT{bits}" for bits in (8, 16, 32, 64)},
    **{f"tensor(int{bits})": f"INT{bits}" for bits in (8, 16, 32, 64)},
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
"""By what ONNX Runtime calls them."""
_MATRIX_TYPES = {"FP32": "float32", "FP64": "float64"}


class OnnxRuntime:
    """Runs an ONNX graph, softmax included, in ONNX Runtime on the CPU.

    Its tensors must be those of ``signature``, by name; one input and one output may have names of
    their own. It is read from ``path`` whole, weights and all: a file beside it, which nobody
    verified, is not. Raises `BundleError` for any other graph.
    """

    name = "onnx"
    device = "cpu"

    def __init__(self, path: Path, threads: int, signature: Signature) -> None:
        try:
            session = open_session(path.read_bytes(), threads)
        except Exception as error:  # a pybind exception with no public base
            raise BundleError(
                f"{path} can't be loaded by ONNX Runtime: {first_line(error)}."
            ) from error
        inputs, outputs = session.get_inputs(), session.get_outputs()
        is_pair = len(signature.inputs) == len(signature.outputs) == 1
        if is_pair and not len(inputs) == len(outputs) == 1:
            raise BundleError(
                f"{path} must have one input and one output; it has {len(inputs)} and "
                f"{len(outputs)}."
            )
        self._session: Any = session
        self._options: Any = None
        bound = _bind(path, "input", signature.inputs, inputs)
        # Most graphs have our names, and then nothing is made for each prediction.
        self._renamed = bound if any(ours != its for ours, its in bound.items()) else {}
        bound = _bind(path, "output", signature.outputs, outputs)
        self._outputs, self._graph_outputs = [*bound], [*bound.values()]

    def run(self, inputs: Tensors) -> Tensors:
        if self._renamed:
            inputs = {named: inputs[name] for name, named in self._renamed.items()}
        found = self._session.run(self._graph_outputs, inputs, self._options)
        return dict(zip(self._outputs, found, strict=True))

    @contextmanager
    def time_limit(self, seconds: float) -> Iterator[None]:
        """Stop runs after ``seconds``, between two operations of the graph.

        A single operation is not interrupted, nor is reading the graph: `app.model.isolation`
        limits those, too.
        """
        from onnxruntime import RunOptions

        before = self._options
        options = self._options = RunOptions()
        timer = threading.Timer(seconds, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            yield
        except Exception as error:
            if options.terminate:
                raise BundleError(
                    f"The network was still running after {seconds:g} seconds: it may never end. "
                    "If it is only slow, raise model.check_seconds."
                ) from error
            raise
        finally:
            timer.cancel()
            self._options = before


def _bind(
    path: Path, role: str, specs: Sequence[TensorSpec], tensors: Sequence[Any]
) -> dict[str, str]:
    """Return what the graph calls the tensors of ``specs``, by their names.

    Raises `BundleError` where the graph's ``tensors`` are others.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    names = [spec.name for spec in specs]
    if by_name.keys() != set(names):
        if not len(specs) == len(tensors) == 1:
            raise BundleError(
                f"{path} has the {role}s {listed(by_name)}, and the manifest says {listed(names)}."
            )
        by_name = {names[0]: tensors[0]}
    for spec in specs:
        tensor = by_name[spec.name]
        if DATATYPES.get(tensor.type) != spec.datatype or not _fits(spec, tensor.shape):
            called = "" if len(specs) == 1 else f" {shown(spec.name)}"
            raise BundleError(
                f"{path}: the {role}{called} must be {_described(spec)}; it is {tensor.type} of "
                f"shape {tensor.shape}."
            )
    return {name: by_name[name].name for name in names}


def _fits(spec: TensorSpec, shape: Sequence[int | str | None]) -> bool:
    """Return True if ``shape`` of a graph, whose varying dimensions are no numbers, is the spec's.

    What varies in the graph may be one number for us; what varies for us must vary in the graph.
    """
    return len(shape) == len(spec.shape) and all(
        not isinstance(size, int) or size == wanted
        for wanted, size in zip(spec.shape, shape, strict=True)
    )


def _described(spec: TensorSpec) -> str:
    if len(spec.shape) == 2 and spec.shape[0] == -1 and spec.datatype in _MATRIX_TYPES:
        return f"{_MATRIX_TYPES[spec.datatype]} of any number of rows and {spec.shape[1]} columns"
    return f"{spec.datatype} of shape {list(spec.shape)}"


def open_session(content: bytes, threads: int) -> Any:
    """Return a session of ONNX Runtime for a graph, weights included; it reads no file.

    Raises what ONNX Runtime raises; its exceptions have no public base.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Its arena permanently keeps the most that any run has needed: 660 MiB after one batch of
    # 10,000 rows of a wide network. malloc is as fast, and returns it (`app.worker.malloc`).
    options.enable_cpu_mem_arena = False
    # Otherwise the threads of a pool spin between two runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # For a graph in bytes, external weights would be read from the working directory, whose files
    # callers could then infer from the answers. No file lies below a file.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    options.log_severity_level = 4  # its messages are in its exceptions
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def choose_runtime(
    choice: RuntimeChoice, *, has_onnx: bool, has_checkpoint: bool, device: str = "cpu"
) -> str:
    """Return the name of the runtime to use: by default ONNX Runtime, if possible.

    That is the case on a CPU. Raises `BundleError` if the bundle lacks what the runtime executes,
    or if the runtime can't use ``device`` or isn't installed.
    """
    on_cpu = device == "cpu"
    name = choice if choice != "auto" else "onnx" if has_onnx and on_cpu else "torch"
    if name == "onnx" and not on_cpu:
        raise BundleError(
            f"model.runtime is 'onnx', which runs only on the CPU, but model.device is {device!r}; "
            "set model.runtime to 'auto' or 'torch', or model.device to 'cpu'."
        )
    if name == "onnx" and not has_onnx:
        raise BundleError(
            "model.runtime is 'onnx', but this model has no model.onnx; use 'auto' or 'torch'."
        )
    if name == "torch" and not has_checkpoint:
        raise BundleError(
            "model.runtime is 'torch', but this model has no model.pt; use 'auto' or 'onnx'."
            if on_cpu
            else f"model.device is {device!r}, which requires torch, but this model has no "
            "model.pt: only checkpoints of Lantern's own network are packed with one. Set "
            "model.device to 'cpu'."
        )
    if name == "torch" and not is_installed(name):
        if choice == "torch":
            reason = "model.runtime is 'torch'"
        else:
            reason = "This model has no model.onnx" if on_cpu else f"model.device is {device!r}"
        raise BundleError(
            f"{reason}, but torch isn't installed: install it (`pip install {FOR_TORCH}`; in an "
            "image: build it without --target onnx), or serve a model.onnx by ONNX Runtime on the "
            "CPU."
        )
    return name


def is_installed(runtime: str) -> bool:
    """Return True if the library of ``runtime`` is installed, without importing it."""
    return find_spec({"torch": "torch", "onnx": "onnxruntime"}[runtime]) is not None


def import_library(runtime: str) -> None:
    """Import what ``runtime`` needs; no thread is started, so it is safe before a fork, and then
    shared.
    """
    importlib.import_module({"torch": ".network", "onnx": "onnxruntime"}[runtime], __package__)


def _moved(network: Network, device: str) -> Network:
    """Move ``network`` to ``device`` and run it there once, so that failures show now."""
    import torch

    try:
        network = network.to(device)
        network(torch.zeros(1, network.dims[0], device=device))
    # torch without CUDA raises AssertionError.
    except (RuntimeError, AssertionError) as error:
        raise BundleError(
            f"model.device is {device!r}, and torch {torch.__version__} says: "
            f"{first_line(error)}. {_remedy(device, error)}, or set model.device to 'cpu'."
        ) from error
    return network


def _remedy(device: str, error: BaseException) -> str:
    """Return what to do about ``error``, which torch raised for ``device``."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return (
            "Every worker has its own copy of the network there: set server.workers lower, or free "
            "memory of the device"
        )
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return "This build of torch lacks CUDA: install one that has it"
    devices = torch.cuda.device_count()
    if not devices:
        return (
            "Install the driver and let this process see a device (CUDA_VISIBLE_DEVICES, a "
            "container's --gpus)"
        )
    if int(device.partition(":")[2] or 0) >= devices:
        there = ", ".join(f"'cuda:{index}'" for index in range(devices))
        return f"Set it to one that torch finds here ({there})"
    return "Install a build of torch that supports this device and its driver"
