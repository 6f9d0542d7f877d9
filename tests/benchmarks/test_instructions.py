"""Instructions are counted where valgrind is, and where it isn't that is said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import instructions
from benchmarks.bench import Bench
from benchmarks.check import Requests
from benchmarks.servers import BenchmarkError, Program, lantern


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
    counted = instructions._under_valgrind(program, tmp_path)
    assert counted.arguments[-4:] == ("-w", "1", "--timeout", "3600")
    started = " ".join(counted.arguments)
    assert " ".join(program.arguments) in started
    assert str(program.executable.with_name("python")) in started


def test_a_round_is_counted_and_divided_by_its_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, ...]] = []
    sent: list[bytes] = []

    @contextmanager
    def running(program: Program, directory: Path) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(name=program.name, process=SimpleNamespace(pid=7))

    def tell(server: Any, *command: str) -> None:
        told.append(command)
        if command == ("dump",):
            count = len(told)
            (tmp_path / f"callgrind.7.{count}").write_text(f"totals: {count * 3_000}\n")

    monkeypatch.setattr(instructions, "running", running)
    monkeypatch.setattr(instructions, "_tell", tell)
    monkeypatch.setattr(instructions, "_send", lambda _, __, bodies: sent.extend(bodies))
    bench = Bench(2, 1.0, tmp_path)
    requests = Requests("/predict", [b"a", b"b"])
    instructions.count(bench, "a part", [(lantern(), {"one": requests, "two": requests})])
    assert bench.figures["a part"]["one"] == {"instructions": [30.0, 50.0]}
    assert list(bench.figures["a part"]) == ["one", "two"]
    assert len(sent) == 2 * (2 * 100 + 2 * 300)
    assert told[:2] == [("instrumentation", "on"), ("zero",)]
