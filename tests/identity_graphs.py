"""Bundles of networks that return what they take, whatever tensors these are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from app.model.bundle import ONNX
from app.model.golden import Golden
from app.model.manifest import Manifest
from app.model.signature import DTYPES, OutputSpec, TensorSpec
from app.packing.bundle_writer import write_bundle

_ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    **{f"UINT{bits}": getattr(TensorProto, f"UINT{bits}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": getattr(TensorProto, f"INT{bits}") for bits in (8, 16, 32, 64)},
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def write_identity(
    out: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[OutputSpec] = (),
    **manifest: Any,
) -> Path:
    """Write a bundle to ``out``, whose outputs are its inputs; by default of the same names, with
    "same " before them.
    """
    specs = outputs or [OutputSpec(f"same {s.name}", s.datatype, s.shape) for s in inputs]
    graph = helper.make_graph(
        [
            helper.make_node("Identity", [a.name], [b.name])
            for a, b in zip(inputs, specs, strict=True)
        ],
        "identity",
        [_value(spec) for spec in inputs],
        [_value(spec) for spec in specs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    arrays = [_some(spec) for spec in inputs]
    described: dict[str, Any] = {"task": "tensors"} | manifest
    write_bundle(
        out,
        Manifest(out.parent.name, out.name, inputs=(*inputs,), outputs=(*specs,), **described),
        Golden(
            {spec.name: array for spec, array in zip(inputs, arrays, strict=True)},
            {spec.name: array for spec, array in zip(specs, arrays, strict=True)},
        ),
        lambda to: onnx.save(model, to / ONNX),
    )
    return out


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    shape = [None if size < 0 else size for size in spec.shape]
    return helper.make_tensor_value_info(spec.name, _ONNX_TYPES[spec.datatype], shape)


def _some(spec: TensorSpec) -> Any:
    """Return an array of a tensor, which has probabilities if it is of floats."""
    shape = [2 if size < 0 else size for size in spec.shape]
    if spec.datatype == "BYTES":
        return np.full(shape, "x", dtype=object)
    array = np.zeros(shape, dtype=DTYPES[spec.datatype])
    if spec.datatype.startswith("FP") and array.ndim == 2:
        array[:, :1] = 1
    return array
