"""A user's model as packing sees it, whatever its file: a graph, and a way to run the original."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from ..model.signature import Tensors, TensorSpec
from ..model.steps.declaration import Sample

if TYPE_CHECKING:
    import onnx

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt")
PROGRAM_SUFFIX = ".pt2"
GRAPH_SUFFIX = ".onnx"
THE_ONLY_INPUT = ""
"""The name of an example whose input isn't known by name."""

DYNAMIC_BATCH = (
    "Export it for any number of rows: torch.export.export(model, (example,), "
    'dynamic_shapes=({0: torch.export.Dim("rows")},)), or the same argument of torch.onnx.export'
)


OutputKind = Literal["", "probabilities", "logits", "scores", "values", "label"]
"""The kind of an output by the graph itself; empty where it doesn't say it."""


class GraphOutput(Struct, frozen=True):
    """An output of a graph, and what the graph itself says of it.

    ``labels`` are the names of its columns, in their order, or those of the values of a label.
    ``kind`` comes from the operators and their attributes, never from answers. With ``is_reversed``
    the scores of the two classes stand in each other's columns.
    """

    spec: TensorSpec
    labels: tuple[str | int, ...] = ()
    kind: OutputKind = ""
    is_reversed: bool = False


@dataclass(frozen=True, slots=True)
class GraphSource:
    """A user's model: its graph of tensors, and a way to run the original.

    ``graph`` has neither maps nor sequences, and float32 at its border for BF16; ``inputs`` and
    ``outputs`` are its own, and -1 varies.
    ``ask`` runs the file as it came, on arrays by the names of the inputs, and answers by the names
    of the outputs; it raises only `BundleError`. ``notes`` are sentences for the user: what was
    done, or assumed. ``path`` is for messages. ``preprocess`` is what the model's own library makes
    of images or texts, as inputs, where it has steps of its own.
    """

    path: Path
    graph: onnx.ModelProto
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[GraphOutput, ...]
    ask: Callable[[Tensors], Tensors]
    notes: tuple[str, ...] = ()
    preprocess: Callable[[Sequence[Sample]], Tensors] | None = None
