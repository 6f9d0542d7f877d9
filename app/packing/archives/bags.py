"""The network of a ``text_classifier``: it takes the ids of the words of all texts in one tensor,
and the offset of each text in it, as an EmbeddingBag does. Served, it takes a row for each text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from ...model.errors import BundleError
from ...model.signature import Tensors, TensorSpec
from ...model.steps.declaration import NO_WORD
from ..graphs.editor import GraphEditor
from ..programs.module import exported
from ..programs.program import DATATYPES, as_numpy
from ..programs.torchscript import exported_torchscript, last_line, load_torchscript
from ..source import GraphOutput, GraphSource
from .container import Unpacked
from .network import open_eager, script_of
from .torchserve import TorchServeModel

_IDS, _TEXT, _OFFSETS, _OUTPUT = "ids", "text", "offsets", "output"
_CLOSE = 1e-4
"""The distance that an answer beside another text's may have from that to the text alone."""


@dataclass(frozen=True, slots=True)
class _Network:
    """A loaded network, which TorchServe calls with the ids of one text and the offset 0."""

    path: Path
    module: Any
    export: Callable[[torch.Tensor, torch.Tensor, bool], onnx.ModelProto]

    def run(self, text: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        """Return the answer, a row for each offset. Raises `BundleError`."""
        try:
            with torch.no_grad():  # a script that is exported must keep no tensor of inference mode
                answer = self.module(text, offsets)
        except Exception as error:  # torch's exceptions have no common base
            raise BundleError(
                f"{self.path} can't be run: {last_line(error)}. Its handler gives it the ids of "
                "words, INT64 of [N], and the offset of each text in them."
            ) from error
        if not isinstance(answer, torch.Tensor) or answer.dtype not in DATATYPES:
            raise BundleError(f"{self.path} returns no tensor of floats.")
        return answer

    def takes_texts(self, text: torch.Tensor) -> bool:
        """Return True if the answer to several texts at once is that to each of them."""
        parts = (text, text[:1])
        try:
            together = self.run(torch.cat(parts), torch.tensor([0, len(text)]))
        except BundleError:
            return False
        alone = torch.cat([self.run(part, torch.tensor([0])) for part in parts])
        return together.shape == alone.shape and torch.allclose(
            together, alone, rtol=_CLOSE, atol=_CLOSE
        )


def open_bag_network(model: TorchServeModel, unpacked: Unpacked, highest: int) -> GraphSource:
    """Return the network of an archive, for rows of ids from 0 to ``highest``, filled up with
    `NO_WORD`.

    Raises `BundleError`; its messages name files where they were unpacked to.
    """
    network = _eager(model, unpacked) if model.model_file else _script(model, unpacked)
    text = torch.tensor([0, highest // 2, highest])
    answer = network.run(text, torch.tensor([0]))
    takes_texts = network.takes_texts(text)
    rows = -1 if takes_texts else 1
    exported_graph = network.export(text, torch.tensor([0, 1] if takes_texts else [0]), takes_texts)
    graph, name = _of_rows(exported_graph, rows, network.path)

    def ask(tensors: Tensors) -> Tensors:
        rows_of_ids = torch.from_numpy(np.array(tensors[name], np.int64))
        answers = [network.run(ids[ids != NO_WORD], torch.tensor([0])) for ids in rows_of_ids]
        return {_OUTPUT: as_numpy(torch.cat(answers))}

    shape = (rows, *answer.shape[1:]) if answer.ndim else ()
    output = TensorSpec(_OUTPUT, DATATYPES[answer.dtype], shape)
    ids = TensorSpec(name, "INT64", (rows, -1))
    return GraphSource(network.path, graph, (ids,), (GraphOutput(output),), ask)


class _OfBags(torch.nn.Module):
    """A model that is given ids and offsets, whatever its arguments are called."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, text: torch.Tensor, offsets: torch.Tensor) -> Any:
        return self.inner(text, offsets)


def _eager(model: TorchServeModel, unpacked: Unpacked) -> _Network:
    path = unpacked.directory / model.model_file
    module = _OfBags(open_eager(model, unpacked)).eval()
    varies = {0: torch.export.Dim.DYNAMIC}

    def export(text: torch.Tensor, offsets: torch.Tensor, takes_texts: bool) -> onnx.ModelProto:
        return exported(
            module,
            [text, offsets],
            inputs=[_TEXT, _OFFSETS],
            output=_OUTPUT,
            dynamic_shapes=(varies, varies if takes_texts else {}),
            path=path,
        )

    return _Network(path, module, export)


def _script(model: TorchServeModel, unpacked: Unpacked) -> _Network:
    path = script_of(model, unpacked)
    module = load_torchscript(path)

    def export(text: torch.Tensor, offsets: torch.Tensor, takes_texts: bool) -> onnx.ModelProto:
        rows = {_OFFSETS: {0: "rows"}, _OUTPUT: {0: "rows"}} if takes_texts else {}
        return exported_torchscript(
            module,
            [text, offsets],
            inputs=[_TEXT, _OFFSETS],
            outputs=[_OUTPUT],
            axes={_TEXT: {0: "words"}, **rows},
            path=path,
        )

    return _Network(path, module, export)


def _of_rows(graph: onnx.ModelProto, rows: int, path: Path) -> tuple[onnx.ModelProto, str]:
    """Return ``graph``, which takes ids and offsets, for rows of ids, and the name of that input.

    There are any number of ``rows`` where they are -1.
    """
    editor = GraphEditor(graph, path)
    text, offsets = editor.replace_input(_TEXT, "words"), editor.replace_input(_OFFSETS, "firsts")
    ids = editor.new_name(_IDS)
    zero, flat, second = (
        editor.constant(np.array(value, np.int64), name)
        for value, name in ((0, "first_id"), ([-1], "flat"), ([1], "second_axis"))
    )
    names = ("is_word", "all_are_words", "counted", "counts")
    is_word, flags, counted, counts = map(editor.new_name, names)
    put = editor.put_in_front
    put("GreaterOrEqual", [ids, zero], is_word)
    put("Reshape", [is_word, flat], flags)
    put("Compress", [ids, flags], text)
    put("Cast", [is_word], counted, to=TensorProto.INT64)
    put("ReduceSum", [counted, second], counts, keepdims=0)
    put("CumSum", [counts, zero], offsets, exclusive=1)
    del graph.graph.input[:], graph.graph.value_info[:]
    shape = ["rows" if rows < 0 else rows, "words"]
    graph.graph.input.append(helper.make_tensor_value_info(ids, TensorProto.INT64, shape))
    editor.drop_unused()
    return graph, ids
