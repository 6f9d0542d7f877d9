"""A directory of transformers as a model to pack: its network, its steps and its meaning.

It runs in a child process (`app.model.isolation`), without the network and without code of the
directory.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...model.errors import BundleError, first_line, listed
from ...model.signature import DTYPES, Tensors, TensorSpec
from ...model.steps.declaration import ImageStep, Sample, Step
from ..description import ModelDescription
from ..network import quiet_exporter
from ..programs.module import exported
from ..source import GraphOutput, GraphSource
from ..statement import Statement
from ..step_tables import TOKENIZER
from .directory import CONFIG, Directory, read_directory
from .meaning import stated_by

if TYPE_CHECKING:
    import onnx

_OUTPUT = "logits"
_EXAMPLE_TOKENS = 7


@dataclass(frozen=True, slots=True)
class Opened:
    """A directory as a source, and what it says of itself in place of the owner."""

    source: GraphSource
    description: ModelDescription
    statement: Statement


def open_directory(
    path: Path, description: ModelDescription, statement: Statement, scratch: Path
) -> Opened:
    """Return the classifier in ``path``; ``scratch`` is for files that its steps read.

    What the owner says in ``description`` and ``statement`` beats what the directory says. Raises
    `BundleError`, which names what can't be carried over.
    """
    if description.features:
        raise BundleError(f"{path} takes texts or images, and no features: leave them out.")
    directory = read_directory(path)
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the library is imported
    with quiet_exporter():
        model, notes = _load(directory)
        are_named = bool(description.classes or description.labels or description.targets)
        statement, assumed = stated_by(model.config, path, statement, are_named=are_named)
        steps = _Steps.of(directory, model, description, scratch)
        source = _source(directory, model, steps)
    return Opened(
        replace(source, notes=(*notes, *assumed, *steps.notes), preprocess=steps.original),
        replace(description, steps=(steps.step,), files=steps.files),
        statement,
    )


def _load(directory: Directory) -> tuple[Any, tuple[str, ...]]:
    """Return the model with its weights, all of which are in the directory, and notes."""
    import transformers

    path = directory.path
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    called = {"text": "SequenceClassification", "image": "ImageClassification"}[directory.kind]
    loader: Any = getattr(transformers, f"AutoModelFor{called}")
    try:
        model, found = loader.from_pretrained(
            str(path),
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
            dtype=torch.float32,
            attn_implementation="eager",
        )
    except Exception as error:  # the library raises what it likes
        raise BundleError(
            f"{path} can't be loaded by transformers {transformers.__version__}: "
            f"{first_line(error)}."
        ) from error
    if type(model).__name__ != directory.architecture:
        raise BundleError(
            f"{path / CONFIG}: transformers takes it for {type(model).__name__}, and architectures "
            f"says {directory.architecture}."
        )
    for key, what in (("missing_keys", "are missing"), ("mismatched_keys", "have other shapes")):
        if found.get(key):
            names = listed(map(str, sorted(found[key])), 5)
            raise BundleError(
                f"{path}: weights {what}, which transformers would fill with random numbers: "
                f"{names}."
            )
    notes = [f"{directory.architecture}, by transformers {transformers.__version__}."]
    if found.get("unexpected_keys"):
        names = listed(map(str, sorted(found["unexpected_keys"])), 5)
        notes.append(f"Weights that the model doesn't use: {names}.")
    stated = getattr(model.config, "dtype", None)
    if str(stated) not in ("None", "torch.float32"):
        notes.append(f"The weights are {stated}, and computed with in float32.")
    return model.eval(), tuple(notes)


@dataclass(frozen=True, slots=True)
class _Steps:
    """The step of a directory, its files, and what the library itself makes of samples."""

    step: Step
    files: dict[str, Path]
    original: Callable[[Sequence[Sample]], Tensors]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, directory: Directory, model: Any, description: ModelDescription, scratch: Path
    ) -> _Steps:
        """Return the step of ``directory``. Raises `BundleError`."""
        if description.steps:
            raise BundleError(
                f"{directory.path} has steps of its own: leave those of the features file out."
            )
        if directory.kind == "image":
            from .images import image_step, open_processor, pixels_of

            processor = open_processor(directory.path)
            made = image_step(processor, directory.path)
            note = "Images are resized by Pillow, as transformers does without torchvision."
            return cls(made, {}, lambda samples: pixels_of(processor, samples), (note,))
        from .texts import open_tokenizer, text_step, tokens_of

        tokenizer = open_tokenizer(directory.path)
        accepted = list(inspect.signature(model.forward).parameters)
        step, notes = text_step(tokenizer, model, accepted, directory.path)
        file = scratch / TOKENIZER
        # As the library has it in memory, which may differ from what is in the directory.
        file.write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
        return cls(
            step, {TOKENIZER: file}, lambda samples: tokens_of(tokenizer, step, samples), notes
        )


class _Logits(torch.nn.Module):
    """A model that takes tensors in an order, and returns nothing but its logits."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        given = dict(zip(self.names, tensors, strict=True))
        logits: torch.Tensor = self.model(**given, return_dict=True).logits
        return logits


def _source(directory: Directory, model: Any, steps: _Steps) -> GraphSource:
    inputs = _inputs(steps.step)
    names = [spec.name for spec in inputs]
    module = _Logits(model, names).eval()
    path, width = directory.path, int(model.config.num_labels)

    def ask(tensors: Tensors) -> Tensors:
        given = [np.array(tensors[s.name], DTYPES[s.datatype], order="C") for s in inputs]
        try:
            with torch.inference_mode():
                return {_OUTPUT: module(*map(torch.from_numpy, given)).numpy()}
        except Exception as error:  # torch's exceptions have no common base
            raise BundleError(f"{path} can't be run: {first_line(error)}.") from error

    graph = _exported(module, inputs, path)
    return GraphSource(
        path, graph, inputs, (GraphOutput(TensorSpec(_OUTPUT, "FP32", (-1, width))),), ask
    )


def _inputs(step: Step) -> tuple[TensorSpec, ...]:
    if not isinstance(step, ImageStep):
        return tuple(TensorSpec(name, "INT64", (-1, -1)) for name in step.inputs)
    assert step.size is not None  # `image_step` refuses others
    shape = (-1, step.channels, step.size.height, step.size.width)
    return (TensorSpec(step.input, "FP32", shape),)


def _exported(module: torch.nn.Module, inputs: Sequence[TensorSpec], path: Path) -> onnx.ModelProto:
    """Return ``module`` as a graph for any number of rows, and texts of any length."""
    dynamic: Any = torch.export.Dim.DYNAMIC
    shapes = tuple(
        {index: dynamic for index, size in enumerate(spec.shape) if size == -1} for spec in inputs
    )
    return exported(
        module,
        [_example(spec) for spec in inputs],
        inputs=[spec.name for spec in inputs],
        output=_OUTPUT,
        dynamic_shapes=(shapes,),
        path=path,
    )


def _example(spec: TensorSpec) -> torch.Tensor:
    """Return a tensor of ``spec`` of two rows."""
    if spec.datatype == "FP32":
        return torch.rand(2, *spec.shape[1:])
    ones = torch.ones(2, _EXAMPLE_TOKENS, dtype=torch.int64)
    return torch.zeros_like(ones) if spec.name == "token_type_ids" else ones
