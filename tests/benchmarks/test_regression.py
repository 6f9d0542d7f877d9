"""What fell back is found, noise isn't, and what only one of two runs has is named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import regression
from benchmarks.bench import Bench
from benchmarks.check import BATCH, COMPARED, FLASK, REFERENCE, REFERENCE_BATCH
from benchmarks.figures import Figures
from benchmarks.regression import changes, committed, judge
from benchmarks.servers import LANTERN

CPU = "A processor (1/2/3)"
BEFORE = (0.98, 1.0, 1.01, 1.03, 0.99)


def figures(
    ratios: Sequence[float] = BEFORE, instructions: Sequence[float] = (400_000, 400_800, 399_500)
) -> Figures:
    """Return those of a run in which Lantern's cost had these ratios to the peer's."""
    costs = [90.0, 130.0, 100.0, 95.0, 110.0][: len(ratios)]  # a machine that others use, too
    return {
        "check": {
            REFERENCE: {"cpu_us": costs},
            LANTERN: {"cpu_us": [us * ratio for us, ratio in zip(costs, ratios, strict=True)]},
        },
        "instructions": {
            LANTERN: {"instructions": list(instructions)},
            REFERENCE: {"instructions": [300_000.0]},
        },
    }


def results(of: Figures, cpu: str = CPU, at: str = "2026-11-01") -> dict[str, Any]:
    return {"commit": "0123456789abcdef", "measured_at": at, "machine": {"cpu": cpu}, "figures": of}


def test_what_costs_more_than_it_ever_did_fell_back() -> None:
    said, fell = judge(results(figures()), figures([each * 1.1 for each in BEFORE]), CPU)
    assert fell
    assert said[1] == (
        "Lantern fell back by 10%: 1.10 (1.08 to 1.13) times the CPU of handtuned, "
        "and 1.00 (0.98 to 1.03) before."
    )
    assert said[2].startswith("Lantern is as before: 400,000 (399,500 to 400,800) instructions")


@pytest.mark.parametrize(
    "now",
    [BEFORE, [each * 1.04 for each in BEFORE], (0.9, 1.4, 1.5, 1.3, 1.6)],
    ids=["the same", "within the spread of both", "a machine that others use"],
)
def test_noise_is_no_fall(now: Sequence[float]) -> None:
    said, fell = judge(results(figures()), figures(now), CPU)
    assert not fell
    assert said[1].startswith("Lantern is as before")


def test_a_fall_that_is_small_does_not_count_however_sure_it_is() -> None:
    steady, little_more = figures([1.0] * 5), figures([1.01] * 5)
    assert not judge(results(steady), little_more, CPU)[1]
    assert judge(results(steady), figures([1.03] * 5), CPU)[1]


def test_a_gain_is_told_and_is_no_fall() -> None:
    said, fell = judge(results(figures()), figures([each * 0.8 for each in BEFORE]), CPU)
    assert not fell
    assert said[1].startswith("Lantern gained by 20%: 0.80 ")


def test_instructions_count_by_themselves() -> None:
    said, fell = judge(results(figures()), figures(instructions=[412_000, 411_000]), CPU)
    assert fell
    assert said[1].startswith("Lantern fell back by 3%: 411,500 (411,000 to 412,000) instructions")


def test_another_processor_is_told_and_only_much_counts_on_it() -> None:
    before = results(figures(), "Another")
    said, fell = judge(before, figures([each * 1.1 for each in BEFORE]), CPU)
    assert not fell
    assert "another processor, Another, and this is A processor (1/2/3)" in said[1]
    assert judge(before, figures([each * 1.3 for each in BEFORE]), CPU)[1]
    # Instructions are counted, and the same on any.
    assert judge(before, figures(instructions=[420_000]), CPU)[1]


def test_what_only_one_run_has_is_named() -> None:
    before, now = figures(), figures()
    before["check"][FLASK] = {"cpu_us": [200.0] * 5}
    now["check"] |= {name: {"cpu_us": [900.0] * 5} for name in (BATCH, REFERENCE_BATCH)}
    del now["instructions"]
    said, fell = judge(results(before), now, CPU)
    assert not fell
    assert said[2:] == [
        "Lantern, in instructions, was measured before, and not now.",
        "Lantern, through Flask, against handtuned, was measured before, and not now.",
        "Lantern, batch of 1,000, against handtuned, batch of 1,000, is measured now, "
        "and was not before.",
    ]


def test_every_cost_is_compared_with_what_does_the_same() -> None:
    same = {name: {"cpu_us": [50.0]} for name in (*COMPARED, *COMPARED.values())}
    assert [each.what for each in changes({"check": same}, {"check": same})] == list(COMPARED)


def test_results_of_this_processor_are_taken_before_newer_ones_of_another(tmp_path: Path) -> None:
    written = {
        "a": results(figures(), CPU, "2026-11-01"),
        "b": results(figures(), CPU, "2026-11-02"),
        "c": results(figures(), "Another", "2026-11-03"),
        "d": results({"predict": {}}, CPU, "2026-11-04"),
    }
    for name, document in written.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(document))
    for cpu, expected in ((CPU, "2026-11-02"), ("A third", "2026-11-03")):
        found = committed(tmp_path, cpu)
        assert found is not None
        assert found["measured_at"] == expected
    assert committed(tmp_path / "d", CPU) is None


@pytest.mark.parametrize(("cost", "status"), [(1.0, 0), (1.5, 1)])
def test_the_command_measures_compares_and_fails_for_a_fall(
    cost: float,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cpu = regression.machine.describe()["cpu"]
    (tmp_path / "results.json").write_text(json.dumps(results(figures(), cpu)))

    def run(parts: Sequence[str], bench: Bench) -> dict[str, float]:
        bench.figures.update(figures([each * cost for each in BEFORE]))
        return {}

    monkeypatch.setattr(regression, "run", run)
    monkeypatch.setattr(regression, "make_environments", lambda peers: None)
    monkeypatch.setattr(regression, "require_programs", lambda: None)
    assert regression.main(["--results", str(tmp_path)]) == status
    assert ("Lantern fell back by 50%" in capsys.readouterr().out) == bool(status)


def test_without_results_to_compare_with_the_command_says_how_to_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(regression, "require_programs", lambda: None)
    assert regression.main(["--results", str(tmp_path)]) == 0
    assert "python -m benchmarks --only check,instructions --out" in capsys.readouterr().out
