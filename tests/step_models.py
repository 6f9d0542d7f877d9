"""Tiny models that take images and texts, as bundles, and samples for them.

Each function writes one to the directory ``out`` and returns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from app.model.bundle import ONNX
from app.model.golden import Golden
from app.model.manifest import Manifest, Tolerance
from app.model.signature import OutputSpec, TensorSpec
from app.model.steps.declaration import (
    ImageStep,
    Resize,
    Sample,
    Size,
    Step,
    TextStep,
    files_of,
)
from app.model.steps.encoder import StepEncoder
from app.packing.bundle_writer import write_bundle

DATA = Path(__file__).parent / "model" / "steps" / "data"
TOKENIZER = "tokenizer.json"
COLOURS = ("red", "green", "blue")
TOPICS = ("billing", "delivery", "account")
PIXELS = TensorSpec("pixels", "FP32", (-1, 3, 16, 16))
PHOTO = ImageStep(
    "pixels",
    resize=Resize(shorter=20),
    crop=Size(16, 16),
    scale=1 / 255,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
TOKENS = (
    TensorSpec("input_ids", "INT64", (-1, -1)),
    TensorSpec("attention_mask", "INT64", (-1, -1)),
)
SENTENCE = TextStep(TOKENIZER, 32, "input_ids", "attention_mask")


def tokenizer() -> bytes:
    """Return the tokenizer.json of a small BERT, with 131 words."""
    return (DATA / TOKENIZER).read_bytes()


def picture(
    colour: tuple[int, int, int] = (200, 40, 40),
    size: tuple[int, int] = (40, 30),
    form: str = "PNG",
) -> bytes:
    """Return a picture of ``colour``, a little brighter to the right, in a file of a format."""
    values = np.tile(np.array(colour, np.int64), (size[1], size[0], 1))
    values += np.linspace(0, 50, size[0]).astype(np.int64)[None, :, None]
    file = BytesIO()
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(file, form)
    return file.getvalue()


PICTURES = tuple(
    Sample(image=picture(colour, size))
    for colour, size in (
        ((200, 40, 40), (40, 30)),
        ((10, 190, 60), (20, 33)),
        ((20, 30, 180), (9, 9)),
    )
)
SENTENCES = (
    Sample(text="where is my parcel"),
    Sample(text="i was charged twice for one order and want my money back"),
    Sample(text="cannot log in", pair="my password is wrong"),
)


def images(out: Path, *, version: str = "", step: ImageStep = PHOTO) -> Path:
    """A classifier of a picture's main colour: softmax of the means of its channels."""
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Softmax", ["means"], ["probabilities"], axis=1),
    ]
    return _write(
        out,
        _Network(nodes, (), (PIXELS,), COLOURS),
        steps=(step,),
        samples=PICTURES,
        version=version,
    )


def texts(out: Path, *, version: str = "", step: TextStep = SENTENCE, masks: bool = True) -> Path:
    """A classifier of texts: softmax of the mean of a vector for each token.

    Unless it ``masks``, that of the padding counts, too.
    """
    table = np.random.default_rng(7).normal(size=(131, len(TOPICS))).astype(np.float32)
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "input_ids"], ["vectors"]),
        node("Cast", ["attention_mask"], ["given"], to=TensorProto.FLOAT),
        node("Max" if not masks else "Identity", ["given", "one"][: 2 - masks], ["mask"]),
        node("Unsqueeze", ["mask", "last"], ["column"]),
        node("Mul", ["vectors", "column"], ["kept"]),
        node("ReduceSum", ["kept", "second"], ["sum"], keepdims=0),
        node("ReduceSum", ["column", "second"], ["count"], keepdims=0),
        node("Div", ["sum", "count"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = {
        "table": table,
        "last": np.array([-1]),
        "second": np.array([1]),
    }
    if not masks:
        constants["one"] = np.ones(1, np.float32)
    initializers = [numpy_helper.from_array(a, name) for name, a in constants.items()]
    return _write(
        out,
        _Network(nodes, initializers, TOKENS, TOPICS),
        steps=(step,),
        samples=SENTENCES,
        version=version,
    )


@dataclass(frozen=True)
class _Network:
    nodes: Sequence[onnx.NodeProto]
    initializers: Sequence[onnx.TensorProto]
    inputs: tuple[TensorSpec, ...]
    classes: tuple[str, ...]

    def encoded(self) -> bytes:
        """Return the file of the network."""
        types = {"FP32": TensorProto.FLOAT, "INT64": TensorProto.INT64}
        values = [
            helper.make_tensor_value_info(
                spec.name,
                types[spec.datatype],
                [f"{spec.name}_{i}" if size < 0 else size for i, size in enumerate(spec.shape)],
            )
            for spec in self.inputs
        ]
        shape = ["n", len(self.classes)]
        answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, "graph", values, [answer], self.initializers)
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        return bytes(model.SerializeToString())


def _write(
    out: Path,
    network: _Network,
    *,
    steps: tuple[Step, ...],
    samples: tuple[Sample, ...],
    version: str,
) -> Path:
    file = network.encoded()
    rows = StepEncoder(steps, network.inputs, lambda name: tokenizer()).encode(samples)
    (found,) = onnxruntime.InferenceSession(file).run(["probabilities"], dict(rows))
    answer = OutputSpec("probabilities", "FP32", (-1, len(network.classes)), "probabilities")
    manifest = Manifest(
        out.parent.name or "model",
        version or out.name,
        classes=network.classes,
        inputs=network.inputs,
        outputs=(answer,),
        steps=steps,
        top=2,
        batch=True,
        tolerances={"probabilities": Tolerance(absolute=1e-5)},
    )

    def fill(directory: Path) -> None:
        (directory / ONNX).write_bytes(file)
        for name in files_of(steps):
            (directory / name).write_bytes(tokenizer())

    write_bundle(out, manifest, Golden(rows, {"probabilities": found}, samples), fill)
    return out
