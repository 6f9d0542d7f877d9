"""The models that the clients ask: the example of this repository, and those of Triton's examples.

Triton's are ``simple`` (the sum and the difference of two tensors of integers), ``simple_string``
(the same, of integers that are written as strings), and ``simple_identity``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.servers import ROOT

_EXAMPLE = "campaign-response"
_WIDTH = 16


def prepare(directory: Path) -> dict[str, str]:
    """Pack the models into ``directory``; return the settings that serve them."""
    paths = {_EXAMPLE: ROOT / "models" / _EXAMPLE}
    for name, (kind, nodes) in _graphs().items():
        inputs = sorted({each for node in nodes for each in node.input if each.startswith("IN")})
        outputs = [each for node in nodes for each in node.output if each.startswith("OUT")]
        graph = helper.make_graph(nodes, name, _values(inputs, kind), _values(outputs, kind))
        opsets = [helper.make_opsetid("", 18)]
        file = directory / f"{name}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), file)
        paths[name] = _pack(file, directory / name, inputs, kind)
    return {f"LANTERN_MODELS__{name.upper()}": str(path) for name, path in paths.items()}


def _graphs() -> dict[str, tuple[int, list[onnx.NodeProto]]]:
    node = helper.make_node
    calculate = [
        node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    read = [
        node("Cast", [f"INPUT{index}"], [f"number{index}"], to=TensorProto.INT32)
        for index in range(2)
    ]
    calculate_numbers = [
        node("Add", ["number0", "number1"], ["sum"]),
        node("Sub", ["number0", "number1"], ["difference"]),
    ]
    write = [
        node("Cast", [name], [f"OUTPUT{index}"], to=TensorProto.STRING)
        for index, name in enumerate(("sum", "difference"))
    ]
    return {
        "simple": (TensorProto.INT32, calculate),
        "simple_string": (TensorProto.STRING, [*read, *calculate_numbers, *write]),
        "simple_identity": (TensorProto.STRING, [node("Identity", ["INPUT0"], ["OUTPUT0"])]),
    }


def _values(names: list[str], kind: int) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, kind, ["n", _WIDTH]) for name in names]


def _pack(file: Path, directory: Path, inputs: list[str], kind: int) -> Path:
    numbers = np.arange(_WIDTH, dtype=np.int32).reshape(1, _WIDTH)
    array = numbers.astype(str) if kind == TensorProto.STRING else numbers
    samples = file.with_suffix(".npz")
    np.savez(samples, **dict.fromkeys(inputs, array))
    command = [sys.executable, "-m", "app", "model", "pack", file, "--task", "tensors"]
    command += ["--samples", samples, "--out", directory / "1"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return directory
