"""Tiny models of every task, and of every kind of feature, as bundles.

Each function writes one to the directory ``out`` and returns it. Their answers can be computed by
hand: sums of the features, with a softmax or a sigmoid where those are probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from app.model.bundle import ONNX
from app.model.features import Feature
from app.model.golden import Golden
from app.model.manifest import Manifest, Target, Tolerance
from app.model.signature import DTYPES, OutputSpec, Tensors, TensorSpec
from app.packing.bundle_writer import write_bundle

_TYPES = {
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "BOOL": TensorProto.BOOL,
    "BYTES": TensorProto.STRING,
}

ROOMS = (
    Feature("rooms", "Rooms", "", 1, 10, example=3, column=0),
    Feature("area", "Living area", "m2", 20, 400, nullable=True, example=85.5, column=1),
)
"""Two numbers, of which one may be null (which is NaN to the network: 100 instead)."""

CITIES = ("Oslo", "Zürich", "New York")
PLANS = ("free", "basic", "pro")
MIXED = (
    Feature("city", "Where", kind="category", tensor="texts", column=0, categories=CITIES,
            example="Oslo"),
    Feature("age", "Age", "years", 18, 90, example=40, tensor="numbers", column=0),
    Feature("plan", kind="category", tensor="codes", column=0, categories=PLANS, example="basic"),
    Feature("member", kind="boolean", tensor="flags", column=0, example=True),
    Feature("visits", kind="integer", tensor="counts", minimum=0, maximum=100, example=2),
    Feature("comment", kind="category", tensor="texts", column=1, unknown="pass", nullable=True,
            null_as="", example="fine"),
    Feature("income", unit="EUR", tensor="numbers", column=1, nullable=True, example=1000.5),
    Feature("since", kind="number", tensor="precise", example=1_700_000_000.25),
    Feature("floor", kind="integer", tensor="codes", column=1, nullable=True, null_as=-1,
            example=4),
)  # fmt: skip
"""Features of all kinds, in another order than the columns of their tensors."""
MIXED_SAMPLE: dict[str, Any] = {feature.name: feature.example for feature in MIXED}
MIXED_INPUTS = (
    TensorSpec("numbers", "FP32", (-1, 2)),
    TensorSpec("counts", "INT64", (-1,)),
    TensorSpec("codes", "INT32", (-1, 2)),
    TensorSpec("flags", "BOOL", (-1, 1)),
    TensorSpec("texts", "BYTES", (-1, 2)),
    TensorSpec("precise", "FP64", (-1,)),
)


def regression(out: Path, targets: Sequence[str] = ("price",), datatype: str = "FP32") -> Path:
    """A regression whose targets are (1, 2, ...) * (rooms + area), in EUR."""
    graph = _Graph()
    total = graph.total_of_rooms(datatype)
    factors = np.arange(1, len(targets) + 1, dtype=DTYPES[datatype]).reshape(1, -1)
    graph.add("Mul", total, graph.constant(factors), into="values")
    return _write(
        out,
        graph,
        _rooms(datatype),
        [OutputSpec("values", datatype, (-1, len(targets)), "values")],
        task="regression",
        features=ROOMS,
        targets=tuple(Target(name, "EUR", f"The {name}") for name in targets),
    )


def lossy(out: Path) -> Path:
    """A regression of rooms + area that leaves out the rows of 600 rooms or more."""
    graph = _Graph()
    rooms = graph.add("Gather", "features", graph.constant(np.array(0)), axis=1)
    kept = graph.add("Less", rooms, graph.floats([600]))
    graph.add("Compress", graph.total_of_rooms("FP32"), kept, into="values", axis=0)
    return _write(
        out,
        graph,
        _rooms("FP32"),
        [OutputSpec("values", "FP32", (-1, 1), "values")],
        task="regression",
        features=ROOMS,
        targets=(Target("price", "EUR"),),
    )


def multilabel(out: Path, labels: Sequence[str] = ("large", "airy", "cheap")) -> Path:
    """Labels whose probabilities are the sigmoids of (rooms + area) / 100 - (0, 1, 2, ...)."""
    graph = _Graph()
    total = graph.add("Div", graph.total_of_rooms("FP32"), graph.floats([100]))
    logits = graph.add("Sub", total, graph.floats([[*range(len(labels))]]))
    graph.add("Sigmoid", logits, into="probabilities")
    return _write(
        out,
        graph,
        _rooms("FP32"),
        [OutputSpec("probabilities", "FP32", (-1, len(labels)), "probabilities")],
        task="multilabel",
        features=ROOMS,
        labels=tuple(labels),
    )


def scores(
    out: Path, classes: Sequence[str] = ("flat", "house", "castle"), datatype: str = "FP32"
) -> Path:
    """A classifier without probabilities: its scores are (0, 1, 2, ...) * (rooms + area - 100)."""
    graph = _Graph()
    offset = graph.constant(np.array([100], dtype=DTYPES[datatype]))
    factors = graph.constant(np.arange(len(classes), dtype=DTYPES[datatype]).reshape(1, -1))
    total = graph.add("Sub", graph.total_of_rooms(datatype), offset)
    graph.add("Mul", total, factors, into="scores")
    return _write(
        out,
        graph,
        _rooms(datatype),
        [OutputSpec("scores", datatype, (-1, len(classes)), "scores")],
        task="classification",
        features=ROOMS,
        classes=tuple(classes),
    )


def embedding(out: Path, size: int = 16, datatype: str = "FP32") -> Path:
    """An embedding: the vector (1, 2, ..., size) * (rooms + area)."""
    graph = _Graph()
    factors = np.arange(1, size + 1, dtype=DTYPES[datatype]).reshape(1, -1)
    graph.add("Mul", graph.total_of_rooms(datatype), graph.constant(factors), into="embedding")
    return _write(
        out,
        graph,
        _rooms(datatype),
        [OutputSpec("embedding", datatype, (-1, size), "embedding")],
        task="embedding",
        features=ROOMS,
    )


def mixed(out: Path) -> Path:
    """A classifier ("no", "yes") of `MIXED`: strings, codes, integers and booleans over several
    tensors of different datatypes.

    Its logit is the number of visits plus 10 if the city is Zürich, plus the code of the plan, plus
    1 for a member, plus age / 100; every other feature is taken, and changes nothing.
    """
    graph = _Graph()
    flat = graph.ints([-1, 1])
    is_city = graph.add(
        "LabelEncoder", "texts", domain="ai.onnx.ml", keys_strings=["Zürich"],
        values_floats=[10.0], default_float=0.0,
    )  # fmt: skip
    weights = {
        "numbers": ("numbers", [[0.01], [0.0]]),
        "codes": (graph.cast("codes"), [[1.0], [0.0]]),
        "flags": (graph.cast("flags"), [[1.0]]),
        "texts": (is_city, [[1.0], [0.0]]),
        "counts": (graph.cast(graph.add("Reshape", "counts", flat)), [[1.0]]),
        "precise": (graph.cast(graph.add("Reshape", "precise", flat)), [[0.0]]),
    }
    null = graph.add("IsNaN", "numbers")
    numbers = graph.add("Where", null, graph.floats([[0.0, 0.0]]), "numbers")
    weights["numbers"] = (numbers, weights["numbers"][1])
    parts = [graph.add("MatMul", name, graph.floats(by)) for name, by in weights.values()]
    logit = graph.add("Sum", *parts)
    graph.add("Softmax", graph.add("Mul", logit, graph.floats([[0, 1]])), into="probabilities")
    return _write(
        out,
        graph,
        MIXED_INPUTS,
        [OutputSpec("probabilities", "FP32", (-1, 2), "probabilities")],
        task="classification",
        features=MIXED,
        classes=("no", "yes"),
    )


def _rooms(datatype: str) -> list[TensorSpec]:
    return [TensorSpec("features", datatype, (-1, 2))]


class _Graph:
    """Nodes that are added one by one, each returning the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, into: str = "", **attributes: Any) -> str:
        into = into or f"{kind} {len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [into], **attributes))
        return into

    def constant(self, array: Any) -> str:
        name = f"constant {len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def floats(self, values: Any) -> str:
        return self.constant(np.array(values, dtype=np.float32))

    def ints(self, values: Sequence[int]) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def cast(self, name: str) -> str:
        return self.add("Cast", name, to=TensorProto.FLOAT)

    def total_of_rooms(self, datatype: str) -> str:
        """Return rooms + area (100 where it is not known), ``(n, 1)``."""
        null = self.constant(np.full((1, 1), 100, dtype=DTYPES[datatype]))
        numbers = self.add("Where", self.add("IsNaN", "features"), null, "features")
        return self.add("ReduceSum", numbers, self.ints([1]), keepdims=1)


def _write(
    out: Path,
    graph: _Graph,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[OutputSpec],
    *,
    features: Sequence[Feature],
    **manifest: Any,
) -> Path:
    """Write the bundle of ``graph``, with golden data of two rows."""
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "graph",
            [_value(spec) for spec in inputs],
            [_value(spec) for spec in outputs],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=8,
    )
    rows = {spec.name: _golden(spec, features) for spec in inputs}
    described = Manifest(
        name=out.parent.name,
        version=out.name,
        description=f"A model of the task {manifest['task']}.",
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        features=tuple(features),
        tolerances={spec.name: Tolerance(1e-5, 1e-5) for spec in outputs},
        batch=True,
        **manifest,
    )
    golden = Golden(rows, _run(proto, rows, outputs))
    write_bundle(out, described, golden, lambda to: onnx.save(proto, to / ONNX))
    return out


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    shape = [size if size >= 0 else "n" for size in spec.shape]
    return helper.make_tensor_value_info(spec.name, _TYPES[spec.datatype], shape)


def _golden(spec: TensorSpec, features: Sequence[Feature]) -> Any:
    """Return two rows of an input: the examples, and the same again."""
    mine = sorted((f for f in features if f.tensor == spec.name), key=lambda f: f.column or 0)
    row = [
        f.categories.index(f.example)  # type: ignore[arg-type]
        if f.kind == "category" and spec.datatype != "BYTES"
        else f.example
        for f in mine
    ]
    shape = (2, *(abs(size) for size in spec.shape[1:]))
    return np.array([row, row], dtype=DTYPES[spec.datatype]).reshape(shape)


def _run(proto: onnx.ModelProto, rows: Tensors, outputs: Sequence[OutputSpec]) -> Tensors:
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    names = [spec.name for spec in outputs]
    return dict(zip(names, session.run(names, dict(rows)), strict=True))
