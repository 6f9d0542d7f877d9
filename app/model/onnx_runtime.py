"""The runtime of ONNX Runtime, for every graph."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

from .errors import BundleError, RunTooLong, first_line, listed, shown
from .onnx_device import check_device, providers_for
from .row_by_row import RowByRow, one_row, takes_one_row
from .run_limits import UNLIMITED, RunLimits
from .run_watch import RunsByThread, ThreadRuns
from .signature import Array, Signature, Tensors, TensorSpec, carrier

Run = Callable[[Sequence[str], Mapping[str, Array], Any], Sequence[Array]]
"""Runs a graph: the names of the outputs to return, the inputs by name, and ``RunOptions``."""

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
    """Runs an ONNX graph in ONNX Runtime, on ``device``: "cpu", "cuda" or "cuda:N".

    Its tensors must be those of ``signature``, by name; one input and one output may have names of
    their own. Where ``has_rows``, a graph that takes one row at a time serves any number of them.
    It is read from ``path`` whole, weights and all: a file beside it, which nobody verified, is
    not. Raises `BundleError` for any other graph, or if ONNX Runtime can't use the device.

    ``limits`` are those of a run, which raises `RunTooLong` and `RunTooLarge`.
    """

    name = "onnx"

    def __init__(
        self,
        path: Path,
        threads: int,
        signature: Signature,
        *,
        device: str = "cpu",
        has_rows: bool = False,
        limits: RunLimits = UNLIMITED,
    ) -> None:
        session = _open(path, threads, device)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        _check_pair(path, signature, inputs, outputs)
        self.device = device
        self._session: Any = session
        self._run = run_of(session)
        if has_rows and takes_one_row(signature.inputs, [tensor.shape for tensor in inputs]):
            self._run = RowByRow(self._run, signature.outputs)
            signature = one_row(signature)
        bound = _bind(path, "input", signature.inputs, inputs, is_exact=True)
        # Most graphs have our names, and then nothing is made for each prediction.
        self._renamed = bound if any(ours != its for ours, its in bound.items()) else {}
        bound = _bind(path, "output", signature.outputs, outputs, is_exact=has_rows)
        self._outputs, self._graph_outputs = [*bound], [*bound.values()]
        self._only_output = self._outputs[0] if len(self._outputs) == 1 else None
        self._limits = limits
        self._runs = RunsByThread(limits.seconds)

    def run(self, inputs: Tensors) -> Tensors:
        if self._renamed:
            inputs = {named: inputs[name] for name, named in self._renamed.items()}
        runs = self._runs.here
        runs.count += 1
        try:
            found = self._run(self._graph_outputs, inputs, runs.options)
        except Exception as error:  # ONNX Runtime's have no public base
            found = self._after(error, inputs, runs)
        finally:
            runs.count += 1
        if self._only_output is not None:
            return {self._only_output: found[0]}
        return dict(zip(self._outputs, found, strict=True))

    def _after(self, error: Exception, inputs: Tensors, runs: ThreadRuns) -> Sequence[Array]:
        """Raise what ``error`` of a run means, or run again if the run before it was meant."""
        if not runs.options.terminate or runs.seconds == inf:
            self._limits.check_memory(error)
            raise error
        if runs.renew():
            raise RunTooLong(runs.seconds) from error
        try:
            return self._run(self._graph_outputs, inputs, runs.options)
        except Exception as again:
            return self._after(again, inputs, runs)

    @contextmanager
    def time_limit(self, seconds: float) -> Iterator[None]:
        """Stop the runs of this thread after ``seconds``, between two operations of the graph.

        The limit of each run does not apply. A single operation is not interrupted, nor is reading
        the graph: `app.model.isolation` limits those, too.
        """
        before = self._runs.here
        limited = self._runs.here = ThreadRuns()
        timer = threading.Timer(seconds, setattr, (limited.options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            yield
        except Exception as error:
            if limited.options.terminate:
                raise BundleError(
                    f"The network was still running after {seconds:g} seconds: it may never end. "
                    "If it is only slow, raise model.check_seconds."
                ) from error
            raise
        finally:
            timer.cancel()
            self._runs.here = before


def _open(path: Path, threads: int, device: str) -> Any:
    try:
        session = open_session(path.read_bytes(), threads, device)
    except BundleError:
        raise
    except Exception as error:  # a pybind exception with no public base
        where = "" if device == "cpu" else f" on {device!r}"
        raise BundleError(
            f"{path} can't be loaded by ONNX Runtime{where}: {first_line(error)}."
        ) from error
    return session


def _check_pair(
    path: Path, signature: Signature, inputs: Sequence[Any], outputs: Sequence[Any]
) -> None:
    """Raise `BundleError` if there is one input and output of ours and not of the graph."""
    is_pair = len(signature.inputs) == len(signature.outputs) == 1
    if is_pair and not len(inputs) == len(outputs) == 1:
        raise BundleError(
            f"{path} must have one input and one output; it has {len(inputs)} and {len(outputs)}."
        )


def _bind(
    path: Path, role: str, specs: Sequence[TensorSpec], tensors: Sequence[Any], *, is_exact: bool
) -> dict[str, str]:
    """Return what the graph calls the tensors of ``specs``, by their names.

    Unless ``is_exact``, a dimension may vary for us that is one number in the graph: of an output,
    that says less than could be said, and nothing wrong.
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
        if DATATYPES.get(tensor.type) != carrier(spec.datatype) or not _fits(
            spec, tensor.shape, is_exact=is_exact
        ):
            called = "" if len(specs) == 1 else f" {shown(spec.name)}"
            raise BundleError(
                f"{path}: the {role}{called} must be {_described(spec)}; it is {tensor.type} of "
                f"shape {tensor.shape}."
            )
    return {name: by_name[name].name for name in names}


def _fits(spec: TensorSpec, shape: Sequence[int | str | None], *, is_exact: bool) -> bool:
    """Return True if ``shape`` of a graph, whose varying dimensions are no numbers, is the spec's.

    What varies in the graph may be one number for us; if ``is_exact``, what varies for us must vary
    in the graph.
    """
    return len(shape) == len(spec.shape) and all(
        not isinstance(size, int) or size == wanted or (wanted < 0 and not is_exact)
        for wanted, size in zip(spec.shape, shape, strict=True)
    )


def _described(spec: TensorSpec) -> str:
    if len(spec.shape) == 2 and spec.shape[0] == -1 and spec.datatype in _MATRIX_TYPES:
        return f"{_MATRIX_TYPES[spec.datatype]} of any number of rows and {spec.shape[1]} columns"
    held = carrier(spec.datatype)
    as_held = "" if held == spec.datatype else f" (held as {held}, as packing has it)"
    return f"{spec.datatype} of shape {list(spec.shape)}{as_held}"


def open_session(content: bytes, threads: int, device: str = "cpu") -> Any:
    """Return a session of ONNX Runtime for a graph, weights included; it reads no file.

    Raises what ONNX Runtime raises; its exceptions have no public base. `BundleError` if it can't
    use ``device``.
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
    session = onnxruntime.InferenceSession(content, options, providers=providers_for(device))
    check_device(session, device)
    return session


def run_of(session: Any) -> Run:
    """Return what runs the graph of ``session``.

    That is what `InferenceSession.run` calls itself, after checks of its own that cost 1 us of a
    prediction of 10 us: for names, which are the graph's here, and for a retry that no session of
    ours makes.
    """
    inner = getattr(session, "_sess", None)
    run: Run = session.run if inner is None else inner.run
    return run
