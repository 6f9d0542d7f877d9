"""Reading a user's model, whatever its file: each kind imports what the others don't need."""

from __future__ import annotations

from pathlib import Path

from ..model.encoder import FeatureEncoder
from ..model.errors import BundleError
from ..model.features import in_one_matrix
from ..model.golden import read_arrays
from ..model.signature import FEATURES, Tensors, TensorSpec
from ..model.steps.declaration import ImageStep
from .checks import Run
from .description import ModelDescription
from .examples import SUFFIXES
from .material import gather
from .rows import Rows, run_in_parts
from .samples import read_samples
from .source import (
    CHECKPOINT_SUFFIXES,
    DYNAMIC_BATCH,
    GRAPH_SUFFIX,
    THE_ONLY_INPUT,
    GraphSource,
)
from .statement import Statement


def open_source(
    path: Path, statement: Statement, description: ModelDescription, samples: Path | None
) -> GraphSource:
    """Return the model in ``path``. Raises `BundleError`."""
    if path.suffix == GRAPH_SUFFIX:
        from .graphs.reading import read_graph

        return read_graph(path)
    if path.suffix in CHECKPOINT_SUFFIXES and statement.allow_code:
        from .programs.torchscript import open_torchscript

        source = open_torchscript(path, _examples(path, description, samples))
    else:
        from .programs.program import open_program

        source = open_program(path)
    from .graphs.border import carry_bfloat16

    carry_bfloat16(source.graph, path)
    return source


def _examples(path: Path, description: ModelDescription, samples: Path | None) -> Tensors:
    """Return an example of the inputs of a model that doesn't say what it takes."""
    if description.steps:
        return gather(description, samples, _usual_inputs(path, description)).golden
    if samples is None or samples.suffix == ".json":
        raise BundleError(
            f"{path} doesn't say what it takes: give samples as a .npz, or a CSV with features."
        )
    if samples.suffix in SUFFIXES:
        return read_arrays(samples)
    if not description.features:
        raise BundleError(
            f"{path} doesn't say what it takes, so the columns of {samples.name} that are its "
            "features must be named: --features is missing."
        )
    rows = read_samples(samples, FeatureEncoder(in_one_matrix(description.features))).spread().rows
    return {THE_ONLY_INPUT: rows[FEATURES]}


def _usual_inputs(path: Path, description: ModelDescription) -> list[TensorSpec]:
    """Return the inputs that steps usually fill: FP32 for an image, INT64 for tokens."""
    specs = []
    for step in description.steps:
        if not isinstance(step, ImageStep):
            specs += [TensorSpec(name, "INT64", (-1, -1)) for name in step.inputs]
            continue
        if step.size is None:
            raise BundleError(
                f"{path} doesn't say what it takes, nor the step which size an image has: give "
                "resize with width and height, or crop."
            )
        sides = (step.size.height, step.size.width)
        of_one = (step.channels, *sides) if step.layout == "NCHW" else (*sides, step.channels)
        specs.append(TensorSpec(step.input, "FP32", (-1, *of_one)))
    return specs


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
