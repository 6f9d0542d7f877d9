"""A network without end holds up neither who verifies it nor a worker that should follow to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from app.model import runtime
from app.model.errors import ReleaseRefused
from app.model.loading import ModelSource
from app.model.release import Release, read_release, write_release
from app.model.repository import Repository
from app.model.service import ModelService
from app.model.verification import verify
from tests.damage import record_file


@pytest.fixture
def endless(versions: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three versions, of which the second answers as before, but after 2^62 rounds."""
    monkeypatch.setattr(runtime, "TRIAL_SECONDS", 0.5)
    write_release(versions, Release("1"))
    file = versions / "2" / "model.onnx"
    model = onnx.load(file)
    go_round_before_answering(model.graph)
    onnx.save(model, file)
    record_file(versions / "2", "model.onnx")
    return versions


def go_round_before_answering(graph: onnx.GraphProto) -> None:
    answer = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["answered" if name == answer else name for name in node.output]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["more"], ["still_more"]),
            helper.make_node("Identity", ["sum"], ["same_sum"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("still_more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("same_sum", TensorProto.FLOAT, []),
        ],
    )
    graph.initializer.extend(
        [
            helper.make_tensor("rounds", TensorProto.INT64, [], [1 << 62]),
            helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
            helper.make_tensor("nothing", TensorProto.FLOAT, [], [0.0]),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("Size", [graph.input[0].name], ["size"]),
            helper.make_node("Cast", ["size"], ["size_as_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["size_as_float", "nothing"], ["start"]),
            helper.make_node("Loop", ["rounds", "yes", "start"], ["end"], body=body),
            helper.make_node("Add", ["answered", "end"], [answer]),
        ]
    )


def test_verifying_it_ends_and_says_so(endless: Path) -> None:
    report = verify(endless, "2")
    assert not report.passed
    assert any(
        "onnx: The network was still running after 0.5 seconds" in p for p in report.problems
    )


def test_it_is_not_promoted_and_the_next_change_can_be_made(endless: Path) -> None:
    with pytest.raises(ReleaseRefused, match="still running"):
        Repository(endless).promote("2")
    Repository(endless).promote("3")
    assert read_release(endless) == Release("3")


def test_a_worker_stays_with_what_serves(endless: Path) -> None:
    service = ModelService(ModelSource(endless))
    service.load()
    write_release(endless, Release("2"))
    service.refresh()
    assert service.current().version == "1"
    assert "still running" in service.fault
    write_release(endless, Release("3"))
    service.refresh()
    assert service.predict(np.zeros((1, 3), np.float32)).model_version == "3"
