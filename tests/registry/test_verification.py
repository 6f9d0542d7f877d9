"""Verification says everything that is wrong with a version, and measures one that is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.model.onnx_runtime import OnnxRuntime
from app.model.signature import FEATURES, PROBABILITIES, Tensors
from app.registry.verification import measure_latency, verify
from tests.damage import DAMAGE, answer_otherwise, corrupt, edit_manifest, truncate


def test_a_version_that_is_right_is_measured_on_each_runtime(versions: Path) -> None:
    report = verify(versions, "2")
    assert report.passed
    assert report.problems == ()
    assert [runtime.name for runtime in report.runtimes] == ["onnx", "torch"]
    for runtime in report.runtimes:
        assert runtime.single_difference is not None
        assert runtime.single_difference <= 1e-5
        assert runtime.batch_difference is not None
        assert runtime.batch_difference <= 1e-5
        latency = runtime.latency
        assert latency is not None
        assert 0 < latency.one_row_p50 <= latency.one_row_p99
        assert latency.one_row_p50 < latency.thousand_rows < 1000


def test_what_is_not_asked_for_is_not_measured(versions: Path) -> None:
    report = verify(versions, "2", measure=False)
    assert report.passed
    assert [runtime.latency for runtime in report.runtimes] == [None, None]


def test_in_a_hurry_one_runtime_is_enough_but_every_file_is_checked(versions: Path) -> None:
    report = verify(versions, "2", measure=False, each_runtime=False)
    assert report.passed
    assert [runtime.name for runtime in report.runtimes] == ["onnx"]
    truncate(versions / "2")
    assert not verify(versions, "2", measure=False, each_runtime=False).passed
    edit_manifest(versions / "3", lambda m: m["files"].pop("model.onnx"))
    report = verify(versions, "3", measure=False, each_runtime=False)
    assert [runtime.name for runtime in report.runtimes] == ["torch"]


def test_only_the_runtimes_that_the_bundle_has_are_tried(versions: Path) -> None:
    edit_manifest(versions / "2", lambda m: m["files"].pop("model.pt"))
    report = verify(versions, "2", measure=False)
    assert report.passed
    assert [runtime.name for runtime in report.runtimes] == ["onnx"]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_what_is_wrong_is_said(versions: Path, damage: Callable[[Path], None]) -> None:
    damage(versions / "2")
    report = verify(versions, "2", measure=False)
    assert not report.passed
    assert DAMAGE[damage] in " ".join(report.problems)


def test_everything_that_is_wrong_is_said_at_once(versions: Path) -> None:
    version = versions / "2"
    answer_otherwise(version)
    truncate(version)
    edit_manifest(version, lambda m: m.update(version="7"))
    (version / "extra.txt").write_text("x")
    record = {"sha256": "0" * 64, "size": 1}
    edit_manifest(version, lambda m: m["files"].update({"extra.txt": record}))
    problems = verify(versions, "2").problems
    assert len(problems) == 4
    for said in ("says '7'", "model.pt has", "extra.txt does not match", "onnx: The answers"):
        assert any(said in problem for problem in problems), said


def test_a_file_that_is_not_what_was_packed_is_not_opened(
    versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrupt(versions / "2")
    monkeypatch.setattr(OnnxRuntime, "__init__", lambda *_, **__: pytest.fail("it was opened"))
    report = verify(versions, "2")
    assert [runtime.name for runtime in report.runtimes] == ["torch"]
    assert len(report.problems) == 1


def test_the_difference_of_a_wrong_model_is_told(versions: Path) -> None:
    answer_otherwise(versions / "3")
    onnx, torch = verify(versions, "3").runtimes
    assert onnx.single_difference is not None
    assert onnx.single_difference > 0.01
    assert onnx.batch_difference == pytest.approx(onnx.single_difference, rel=1e-3)
    assert onnx.latency is None
    assert torch.problem == ""


def test_a_network_that_fails_as_it_runs_is_a_problem_not_a_crash(
    versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Non-zero status code\nand a long story")

    monkeypatch.setattr(OnnxRuntime, "run", fail)
    assert verify(versions, "2").problems == (
        "onnx: The network can't be run: Non-zero status code",
    )


def test_answers_that_are_no_numbers_are_told_without_a_difference(
    versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        OnnxRuntime,
        "run",
        lambda _, inputs: {
            PROBABILITIES: np.full((len(inputs[FEATURES]), 3), np.nan, dtype=np.float32)
        },
    )
    onnx = verify(versions, "2").runtimes[0]
    assert "not probabilities" in onnx.problem
    assert onnx.single_difference is onnx.batch_difference is None


def test_a_slow_network_is_measured_on_fewer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        name = device = "cpu"
        runs = 0

        def run(self, inputs: Tensors) -> Tensors:
            self.runs += 1
            return inputs

    monkeypatch.setattr("app.registry.verification._SECONDS", 0.0)
    slow = Slow()
    rows = {FEATURES: np.zeros((1, 3), dtype=np.float32)}
    latency = measure_latency(slow, [rows, rows], rows)
    assert slow.runs == 2
    assert latency.one_row_p50 == latency.one_row_p99
