"""Instructions are counted where valgrind is, and where it isn't that is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks.bench import Bench
from benchmarks.servers import BenchmarkError, lantern


def test_the_sum_of_a_file_is_read() -> None:
    assert instructions.total("fn=(1) main\n1 20\n\ntotals: 440912\n") == 440912
    with pytest.raises(BenchmarkError, match="no sum"):
        instructions.total("version: 1\n")


def test_without_valgrind_it_is_not_measured_which_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    bench = Bench(1, 1.0, tmp_path)
    instructions.instructions(bench)
    assert "not measured, because it needs valgrind" in capsys.readouterr().out
    assert bench.figures == {} and bench.faults == []


def test_a_program_is_started_as_it_is_with_one_worker(tmp_path: Path) -> None:
    program = lantern()
    counted = instructions._counted(program, tmp_path)
    assert counted.arguments[-4:] == ("-w", "1", "--timeout", "3600")
    started = " ".join(counted.arguments)
    assert " ".join(program.arguments) in started
    assert str(program.executable.with_name("python")) in started
