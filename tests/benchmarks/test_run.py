"""Parts run one after the other; one that fails says so, and leaves nothing behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as main
from benchmarks.bench import Bench
from benchmarks.servers import BenchmarkError


def good(bench: Bench) -> None:
    """Measure something."""
    bench.record("good", "a server", cpu_us=10.0)


def bad(bench: Bench) -> None:
    """Measure half of something."""
    bench.record("half", "a server", cpu_us=10.0)
    raise BenchmarkError("it ended")


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "PARTS", {"bad": bad, "good": good})


def test_a_part_that_fails_is_a_fault_and_the_others_run(tmp_path: Path) -> None:
    bench = Bench(1, 1.0, tmp_path)
    took = main.run(["bad", "good"], bench)
    assert list(bench.figures) == ["good"]
    assert bench.faults == ["bad, it ended"]
    assert list(took) == ["bad", "good"]


def test_a_run_says_how_long_it_took_and_beside_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--only", "good", "--beside-load", "--rounds", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    monkeypatch.setattr(main, "require_programs", lambda: None)
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    monkeypatch.setattr(main, "usable_cores", lambda: 3)
    assert main.main() == 0
    assert "minutes: good 0 s." in capsys.readouterr().out
    assert "beside 3 busy processes" in (tmp_path / "figures.md").read_text()
