"""Any network as a bundle of the task ``tensors``: its graph as it is, and one example of a run.

Nothing is guessed: names, datatypes and shapes are the graph's own, and what they mean is the
caller's. It runs in a child process (`app.model.isolation`): the file may mean harm.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
from msgspec import structs

from ..model import bundle as bundles
from ..model.errors import BundleError, first_line, shown
from ..model.golden import Golden, same_strings
from ..model.manifest import Manifest, Tolerance
from ..model.runtime import DATATYPES, OnnxRuntime, open_session
from ..model.self_test import is_close
from ..model.signature import DTYPES, OutputSpec, Tensors, TensorSpec
from .bundle_writer import write_bundle
from .examples import read_example
from .graph import load_graph, remove_traces, serialised

TOLERANCES = {
    "FP16": Tolerance(relative=1e-2, absolute=1e-3),
    "FP32": Tolerance(relative=1e-4, absolute=1e-5),
    "FP64": Tolerance(relative=1e-4, absolute=1e-5),
}
"""How far a float may lie from the golden one: machines sum in other orders."""


def make_tensor_bundle(source: Path, out: Path, example: Path, description: str = "") -> None:
    """Write the bundle ``out``, whose path gives name and version, of the graph in ``source``.

    ``example`` has an array for each of its inputs, by name. Raises `BundleError` and OSError.
    """
    model = load_graph(source)
    session = _session(serialised(model, source), source)
    inputs = tuple(_spec(each, "input", source) for each in session.get_inputs())
    for each in session.get_outputs():
        _spec(each, "output", source)  # raises what isn't served, before it is run
    given = read_example(example, inputs)
    _state_shapes(model, _run(session, given, source))
    remove_traces(model)
    content = serialised(model, source)
    outputs = tuple(
        OutputSpec(*structs.astuple(_spec(each, "output", source)))
        for each in _session(content, source).get_outputs()
    )
    manifest = Manifest(
        name=out.parent.name,
        version=out.name,
        task="tensors",
        inputs=inputs,
        outputs=outputs,
        tolerances={s.name: TOLERANCES[s.datatype] for s in outputs if s.datatype in TOLERANCES},
        description=description,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    golden = Golden(given, _answers(content, manifest, given, source))

    def fill(directory: Path) -> None:
        (directory / bundles.ONNX).write_bytes(content)

    write_bundle(out, manifest, golden, fill)


def _session(content: bytes, source: Path) -> Any:
    try:
        return open_session(content, threads=1)
    except Exception as error:  # a pybind exception with no public base
        raise BundleError(
            f"{source} can't be loaded by ONNX Runtime: {first_line(error)}."
        ) from error


def _spec(tensor: Any, role: str, source: Path) -> TensorSpec:
    """Return an input or output as ONNX Runtime describes it."""
    datatype = DATATYPES.get(tensor.type)
    if datatype is None:
        hint = ""
        if tensor.type.startswith("seq(map("):
            hint = ". Convert without ZipMap (skl2onnx, onnxmltools: options={'zipmap': False})"
        raise BundleError(
            f"{source}: the {role} {shown(tensor.name)} is {tensor.type[:80]}, and only tensors of "
            f"{', '.join(DTYPES)} are served{hint}."
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in tensor.shape)
    return TensorSpec(tensor.name, datatype, shape)


def _state_shapes(model: onnx.ModelProto, found: Tensors) -> None:
    """Make the graph say of its outputs what is true of those that a run ``found``.

    It need not say their shapes at all. A dimension that the run contradicts varies.
    """
    for value in model.graph.output:
        tensor, actual = value.type.tensor_type, found[value.name].shape
        stated = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
        if len(stated) != len(actual):
            stated = [-1] * len(actual)
        shape = onnx.TensorShapeProto()
        for index, (size, true) in enumerate(zip(stated, actual, strict=True)):
            if size == true:
                shape.dim.add().dim_value = size
            else:
                shape.dim.add().dim_param = f"{value.name}_{index}"
        tensor.shape.CopyFrom(shape)
    del model.graph.value_info[:]  # they may contradict it


def _answers(content: bytes, manifest: Manifest, given: Tensors, source: Path) -> Tensors:
    """Return what a worker would answer, which is the same each time."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / bundles.ONNX
        file.write_bytes(content)
        try:
            runtime = OnnxRuntime(file, 1, manifest.signature)
        except BundleError as error:
            why = str(error).replace(str(file), f"{source} as it would be served")
            raise BundleError(why) from error
    answers, again = _run_served(runtime, given, source), _run_served(runtime, given, source)
    for spec in manifest.outputs:
        tolerance = manifest.tolerances.get(spec.name, Tolerance())
        if not is_close(again[spec.name], answers[spec.name], tolerance):
            raise BundleError(
                f"{source} answers the same example differently each time ({shown(spec.name)}); "
                "a bundle must answer alike. Does it draw random numbers, or keep a state?"
            )
    strings = [
        (name, array)
        for name, array in (*given.items(), *answers.items())
        if array.dtype.kind == "O"
    ]
    cut = next((name for name, array in strings if not same_strings(array)), None)
    if cut is not None:
        raise BundleError(
            f"{source}: {shown(cut)} has a string that ends with a null character, which golden "
            "data can't hold; use another example."
        )
    return answers


def _run_served(runtime: OnnxRuntime, given: Tensors, source: Path) -> Tensors:
    try:
        return runtime.run(given)
    except Exception as error:  # a pybind exception with no public base
        raise _not_run(source, error) from error


def _run(session: Any, given: Tensors, source: Path) -> Tensors:
    names = [each.name for each in session.get_outputs()]
    try:
        found = session.run(names, dict(given))
    except Exception as error:  # a pybind exception with no public base
        raise _not_run(source, error) from error
    return dict(zip(names, found, strict=True))


def _not_run(source: Path, error: Exception) -> BundleError:
    return BundleError(f"{source} can't be run on the example: {first_line(error)}.")
