"""Rows of very many values: packing them takes time in proportion to their number."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.model.features import Feature
from app.packing.description import ModelDescription
from app.packing.file import pack_file
from app.packing.reference import MAX_FEATURES
from app.packing.statement import Statement

STATED = Statement("classification", "logits", names=("p", "q"))


def wide(directory: Path, width: int) -> tuple[Path, Path, ModelDescription]:
    """Write a graph of ``width`` columns and three samples, and describe it."""
    random = np.random.default_rng(0)
    weight = (random.normal(size=(width, 2)) / width).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    source, samples = directory / f"{width}.onnx", directory / f"{width}.csv"
    onnx.save(model, source)
    features = [Feature(f"f{index}", nullable=index % 2 == 0) for index in range(width)]
    medians = {feature.name: 0.5 for feature in features if feature.nullable}
    lines = [",".join(feature.name for feature in features)]
    lines += [",".join(map(str, row)) for row in random.normal(size=(3, width)).round(3).tolist()]
    samples.write_text("\n".join(lines))
    return source, samples, ModelDescription(tuple(features), medians=medians)


def seconds_of_cpu(directory: Path, width: int) -> float:
    source, samples, description = wide(directory, width)
    out = directory / "models" / str(width) / "1"
    # Of this thread: others of this process may be those of tests that came before.
    start = time.thread_time()
    pack_file(source, out, samples=samples, description=description, statement=STATED)
    return time.thread_time() - start


def test_no_step_is_quadratic_in_the_number_of_columns(tmp_path: Path) -> None:
    """Eight times as many columns would take 64 times as long if one were."""
    seconds_of_cpu(tmp_path, 500)  # libraries warm up
    few, many = (seconds_of_cpu(tmp_path, width) for width in (5_000, 40_000))
    assert many < 30 * few


def test_a_model_too_wide_to_be_described_has_no_reference(tmp_path: Path) -> None:
    for width in (MAX_FEATURES, MAX_FEATURES + 1):
        source, samples, description = wide(tmp_path, width)
        out = tmp_path / "models" / str(width) / "1"
        pack_file(source, out, samples=samples, description=description, statement=STATED)
        assert (out / "reference.json").is_file() is (width <= MAX_FEATURES)
