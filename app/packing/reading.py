"""Reading a user's model, whatever its file: each kind imports what the others don't need."""

from __future__ import annotations

from pathlib import Path

from ..model.errors import BundleError
from ..model.signature import Tensors, TensorSpec
from .checks import Run
from .rows import Rows, run_in_parts
from .source import DYNAMIC_BATCH, GRAPH_SUFFIX, GraphSource
from .statement import Statement


def open_source(path: Path, statement: Statement, samples: Path | None) -> GraphSource:
    """Return the model in ``path``. Raises `BundleError`."""
    if path.suffix == GRAPH_SUFFIX:
        from .graph_reading import read_graph

        return read_graph(path)
    from .program import open_program

    return open_program(path)


def fixed_rows(inputs: tuple[TensorSpec, ...]) -> int | None:
    """Return the one number of rows that a model was exported for, None for any number."""
    rows = {spec.shape[0] for spec in inputs if spec.shape and spec.shape[0] >= 0}
    return max(rows) if rows else None


def in_parts(run: Run, source: GraphSource, rows: int | None) -> Run:
    """Return ``run`` for any number of rows, where it takes only so many at once."""
    if rows is None:
        return run
    inputs = frozenset(spec.name for spec in source.inputs)
    outputs = frozenset(output.spec.name for output in source.outputs)
    form = Rows(inputs, outputs, rows, rows)

    def in_parts(given: Tensors) -> Tensors:
        try:
            return run_in_parts(run, form, given)
        except BundleError as error:
            raise BundleError(f"{source.path} {error}") from None

    return in_parts


def about_rows(rows: int | None) -> str:
    """Return advice for a model that may have failed because its number of rows is fixed."""
    return "" if rows is None else f" It was exported for exactly {rows} row(s). {DYNAMIC_BATCH}."


def about_precision(inputs: tuple[TensorSpec, ...]) -> str:
    """Return advice for a model that may have failed because it computes in float64."""
    if not any(spec.datatype == "FP64" for spec in inputs):
        return ""
    return (
        " It computes in float64, for which ONNX Runtime lacks some operators: convert the model "
        "with model.float()."
    )
