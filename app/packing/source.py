"""A user's model as packing sees it, whatever its file: a graph, and a way to run the original."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from ..model.errors import BundleError, first_line
from ..model.signature import Tensors, TensorSpec

if TYPE_CHECKING:
    import onnx

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt")
PROGRAM_SUFFIX = ".pt2"
GRAPH_SUFFIX = ".onnx"
THE_ONLY_INPUT = ""
"""The name of an example whose input isn't known by name."""

Outputs = Literal["auto", "logits", "probabilities"]
"""The kind of output of the last layer of a user's model; "auto" detects it from its answers."""

Matrix = NDArray[np.float32]
Answers = NDArray[np.floating[Any]]

DYNAMIC_BATCH = (
    "Export it for any number of rows: torch.export.export(model, (example,), "
    'dynamic_shapes=({0: torch.export.Dim("rows")},)), or the same argument of torch.onnx.export'
)


@dataclass(frozen=True, slots=True)
class Source:
    """A classifier in a user's file: ``graph`` is its ONNX form, as given or exported.

    ``ask`` runs the original on float32 ``(n, width)`` of any ``n``, and returns logits or
    probabilities. ``fixed_rows`` is the one number of rows that it was exported for, or None;
    ``double`` is True if it takes float64. ``path`` is for messages.
    """

    path: Path
    graph: onnx.ModelProto
    ask: Callable[[Matrix], Answers]
    fixed_rows: int | None = None
    double: bool = False


OutputKind = Literal["", "probabilities", "logits", "scores", "values", "label"]
"""What a graph itself says that an output is; empty where it doesn't."""


class GraphOutput(Struct, frozen=True):
    """An output of a graph, and what the graph itself says of it.

    ``labels`` are the names of its columns, in their order, or those of the values of a label.
    ``kind`` comes from the operators and their attributes, never from answers.
    """

    spec: TensorSpec
    labels: tuple[str | int, ...] = ()
    kind: OutputKind = ""


@dataclass(frozen=True, slots=True)
class GraphSource:
    """A user's model: its graph of tensors, and a way to run the original.

    ``graph`` has neither maps nor sequences; ``inputs`` and ``outputs`` are its own, and -1 varies.
    ``ask`` runs the file as it came, on arrays by the names of the inputs, and answers by the names
    of the outputs; it raises only `BundleError`. ``notes`` are sentences for the user: what was
    done, or assumed. ``path`` is for messages.
    """

    path: Path
    graph: onnx.ModelProto
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[GraphOutput, ...]
    ask: Callable[[Tensors], Tensors]
    notes: tuple[str, ...] = ()


def asking(
    run: Callable[[Matrix], Answers], path: Path, *, width: int | None, rows: int
) -> Callable[[Matrix], Answers]:
    """Return a function that calls ``run``, which takes ``rows`` rows, for any number of rows.

    ``width`` is the number of columns that it takes, None for any. The function raises only
    `BundleError`.
    """

    def ask(matrix: Matrix) -> Answers:
        if width not in (None, matrix.shape[1]):
            raise BundleError(
                f"{path} takes {width} columns, but the features file describes {matrix.shape[1]} "
                "features."
            )
        try:
            return _in_parts(run, matrix, rows)
        except BundleError as error:
            raise BundleError(f"{path} {error}") from None
        except (
            Exception
        ) as error:  # of torch, or of ONNX Runtime, whose exceptions have no public base
            raise BundleError(f"{path} can't be run: {first_line(error)}.") from error

    return ask


def _in_parts(run: Callable[[Matrix], Answers], matrix: Matrix, rows: int) -> Answers:
    """Run ``matrix`` in parts of exactly ``rows`` rows, padding the last one with its last row.

    Raises `BundleError` unless there are as many outputs as rows.
    """
    answers = []
    for start in range(0, len(matrix), rows):
        part = matrix[start : start + rows]
        missing = rows - len(part)
        answered = np.asarray(run(np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])))
        if answered.ndim == 0 or len(answered) != rows:
            raise BundleError(
                f"returns outputs of shape {answered.shape} for {rows} rows; one output per row is "
                "expected."
            )
        answers.append(answered[: len(part)])
    return np.concatenate(answers)
