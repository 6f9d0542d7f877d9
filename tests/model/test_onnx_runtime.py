"""ONNX Runtime: the bounds of a run, graphs of one row, and how a run is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from app.model.errors import BundleError, InputsRejected, RunTooLarge, RunTooLong
from app.model.onnx_runtime import OnnxRuntime, open_session, run_of
from app.model.run_limits import RunLimits
from app.model.run_watch import ThreadRuns
from app.model.signature import OutputSpec, Signature, TensorSpec
from tests.tensor_graphs import write_graph

ROWS = Signature(
    inputs=(TensorSpec("x", "FP32", (-1, 2)), TensorSpec("text", "BYTES", (-1,))),
    outputs=(OutputSpec("sum", "FP32", (-1, 1)), OutputSpec("same text", "BYTES", (-1,))),
)


def graph_of_rows(path: Path, rows: Any) -> Path:
    """Write a graph that sums each row and returns the text, of so many ``rows``."""
    return write_graph(
        path,
        [
            helper.make_node("ReduceSum", ["x", "last"], ["sum"], keepdims=1),
            helper.make_node("Identity", ["text"], ["same text"]),
            helper.make_node("Constant", [], ["last"], value_ints=[1]),
        ][::-1],
        [("x", TensorProto.FLOAT, [rows, 2]), ("text", TensorProto.STRING, [rows])],
        [("sum", TensorProto.FLOAT, [rows, 1]), ("same text", TensorProto.STRING, [rows])],
    )


def some_rows(count: int) -> dict[str, Any]:
    return {
        "x": np.arange(2 * count, dtype=np.float32).reshape(count, 2),
        "text": np.array([f"row {i}" for i in range(count)], dtype=np.object_),
    }


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_graph_of_one_row_serves_any_number_of_them(tmp_path: Path, count: int) -> None:
    together = OnnxRuntime(graph_of_rows(tmp_path / "n.onnx", "n"), 1, ROWS, has_rows=True)
    alone = OnnxRuntime(graph_of_rows(tmp_path / "1.onnx", 1), 1, ROWS, has_rows=True)
    rows = some_rows(count)
    wanted, found = together.run(rows), alone.run(rows)
    assert found.keys() == wanted.keys() == {"sum", "same text"}
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(found[name], array)


def test_a_fixed_dimension_is_no_row_where_the_task_has_none(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"input 'x' must be float32 of any number of rows"):
        OnnxRuntime(graph_of_rows(tmp_path / "1.onnx", 1), 1, ROWS)


def test_an_output_without_rows_is_refused_where_rows_run_alone(tmp_path: Path) -> None:
    fixed = Signature(ROWS.inputs, (*ROWS.outputs[:1], OutputSpec("same text", "BYTES", (1,))))
    with pytest.raises(BundleError, match="'same text' must have -1 as the first dimension"):
        OnnxRuntime(graph_of_rows(tmp_path / "1.onnx", 1), 1, fixed, has_rows=True)
    path = write_graph(
        tmp_path / "scalar.onnx",
        [helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0)],
        [("x", TensorProto.FLOAT, [1, 2])],
        [("sum", TensorProto.FLOAT, [])],
    )
    pair = Signature(ROWS.inputs[:1], (OutputSpec("sum", "FP32", (-1, 1)),))
    with pytest.raises(BundleError, match="FP32 of shape"):
        OnnxRuntime(path, 1, pair, has_rows=True)


def test_rows_whose_outputs_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    path = write_graph(
        tmp_path / "places.onnx",
        [
            helper.make_node("NonZero", ["x"], ["places"]),
            helper.make_node("Unsqueeze", ["places", "0"], ["y"]),
            helper.make_node("Constant", [], ["0"], value_ints=[0]),
        ][::-1],
        [("x", TensorProto.FLOAT, [1, 2])],
        [("y", TensorProto.INT64, [1, 2, "n"])],
    )
    signature = Signature(ROWS.inputs[:1], (OutputSpec("y", "INT64", (-1, 2, -1)),))
    runtime = OnnxRuntime(path, 1, signature, has_rows=True)
    x = np.array([[1, 0], [1, 1]], dtype=np.float32)
    assert runtime.run({"x": x[:1]})["y"].shape == (1, 2, 1)
    with pytest.raises(InputsRejected, match=r"'y' has another shape for one row, \[1, 2, 2\]"):
        runtime.run({"x": x})


def endless(path: Path) -> Path:
    """Write a graph that goes round as often as its input says, and returns that."""
    goes_on = helper.make_node("Identity", ["c"], ["goes on"])
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [goes_on, helper.make_node("Add", ["v", "v"], ["v2"])],
        "body",
        [
            info("i", TensorProto.INT64, []),
            info("c", TensorProto.BOOL, []),
            info("v", TensorProto.INT64, []),
        ],
        [info("goes on", TensorProto.BOOL, []), info("v2", TensorProto.INT64, [])],
    )
    return write_graph(
        path,
        [helper.make_node("Loop", ["n", "", "n"], ["y"], body=body)],
        [("n", TensorProto.INT64, [])],
        [("y", TensorProto.INT64, [])],
    )


NUMBER = Signature((TensorSpec("n", "INT64", ()),), (OutputSpec("y", "INT64", ()),))


def test_a_run_that_takes_too_long_is_stopped_and_the_next_one_runs(tmp_path: Path) -> None:
    runtime = OnnxRuntime(endless(tmp_path / "g.onnx"), 1, NUMBER, limits=RunLimits(seconds=0.5))
    for _ in range(2):
        with pytest.raises(RunTooLong, match=r"after 0\.5 seconds, the limit of one run"):
            runtime.run({"n": np.array(1 << 60)})
        assert runtime.run({"n": np.array(3)})["y"] == 24


def test_a_run_is_not_stopped_for_the_one_before_it(tmp_path: Path) -> None:
    """The watch may find a run that ends before it is stopped."""
    runtime = OnnxRuntime(endless(tmp_path / "g.onnx"), 1, NUMBER, limits=RunLimits(seconds=60))
    for _ in range(2):
        runtime._runs.here.options.terminate = True
        assert runtime.run({"n": np.array(3)})["y"] == 24
        assert not runtime._runs.here.options.terminate


def test_a_run_is_stopped_by_how_long_it_was_seen_and_not_by_the_clock() -> None:
    runs = ThreadRuns(seconds=1)
    runs.count += 1
    assert runs.look(100) == 0  # it may have begun just now
    runs.count += 2  # another one
    assert runs.look(100) == 0
    assert runs.look(0.6) == 0.6
    assert not runs.options.terminate
    assert runs.look(0.6) == 1.2
    assert runs.options.terminate
    assert runs.renew()
    runs.look(10)
    assert not runs.options.terminate  # it was told once
    runs.count += 1
    assert runs.look(10) == 0  # nothing runs


def test_the_self_test_has_its_own_limit_and_not_that_of_a_run(tmp_path: Path) -> None:
    runtime = OnnxRuntime(endless(tmp_path / "g.onnx"), 1, NUMBER, limits=RunLimits(seconds=60))
    with (
        pytest.raises(BundleError, match=r"after 0\.2 seconds: it may never end"),
        runtime.time_limit(0.2),
    ):
        runtime.run({"n": np.array(1 << 60)})
    assert runtime.run({"n": np.array(3)})["y"] == 24


def test_what_does_not_fit_into_memory_is_told_by_the_limit(tmp_path: Path) -> None:
    path = write_graph(
        tmp_path / "g.onnx",
        [helper.make_node("ConstantOfShape", ["n"], ["y"])],
        [("n", TensorProto.INT64, [2])],
        [("y", TensorProto.FLOAT, [None, None])],
    )
    signature = Signature((TensorSpec("n", "INT64", (2,)),), (OutputSpec("y", "FP32", (-1, -1)),))
    sizes = {"n": np.array([1 << 30, 1 << 25])}  # beyond what a process can address
    with pytest.raises(RunTooLarge, match=r"the limit of 7 MiB \(limits\.run_memory_mb\)"):
        OnnxRuntime(path, 1, signature, limits=RunLimits(memory_mb=7)).run(sizes)
    with pytest.raises(RunTooLarge, match="ran out of memory on these inputs. Send smaller"):
        OnnxRuntime(path, 1, signature).run(sizes)


@pytest.mark.parametrize(
    "inputs", [{}, {"n": None}, {"n": [1, 2]}, {"n": np.array(1.0)}, {"m": np.array(1)}], ids=str
)
def test_a_run_without_the_checks_of_the_wrapper_raises_and_does_not_crash(
    tmp_path: Path, inputs: dict[str, Any]
) -> None:
    run = run_of(open_session(endless(tmp_path / "g.onnx").read_bytes(), threads=1))
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        run(["y"], inputs, None)
