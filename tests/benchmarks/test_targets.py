"""Targets are judged by the median, and told in a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import picture, report
from benchmarks.figures import Figures, Spread
from benchmarks.measures import BATCH_SIZES, batch_part
from benchmarks.servers import LANTERN, PEER_NAMES
from benchmarks.targets import TARGETS, Bound, Result, Target, results

ABOUT: dict[str, Any] = {
    "commit": "0123456789abcdef-dirty",
    "rounds": 3,
    "seconds": 2.0,
    "machine": {"cpu": "a CPU", "cores": 2, "memory_gib": 8, "kernel": "6.1", "python": "3.11.2"},
    "load_average_before": 0.25,
}


def series(cpu_us: float) -> dict[str, list[float]]:
    cpu = [cpu_us, cpu_us * 1.1, cpu_us * 0.9]
    return {"cpu_us": cpu, "rps": [1e6 / us for us in cpu], "p99_ms": [us / 50 for us in cpu]}


@pytest.fixture
def figures() -> Figures:
    """Lantern takes 100 us for what takes the peers 250, 150, 90, 80 and 1,400."""
    costs = dict(zip((LANTERN, *PEER_NAMES), (100, 250, 150, 90, 80, 1_400), strict=True))
    parts = {"predict": 1, **{batch_part(size): size for size in BATCH_SIZES}}
    return {
        part: {name: series(us * scale) for name, us in costs.items()}
        for part, scale in parts.items()
    }


def verdict(median: float, target: Bound | None, stretch: Bound | None) -> str:
    what = Target("what", "part", "cpu_us", "of", "to", "x", target, stretch)
    return Result(what, Spread(median, 0, 100), 1, 1).verdict


@pytest.mark.parametrize(
    ("median", "told"),
    [(2.4, "no"), (2.5, "yes"), (4.4, "yes"), (4.5, "yes, and the stretch")],
)
def test_the_median_meets_the_target_or_the_stretch_or_neither(median: float, told: str) -> None:
    assert verdict(median, Bound(">=", 2.5), Bound(">=", 4.5)) == told


@pytest.mark.parametrize(
    ("median", "told"),
    [(1.5, "no"), (1.4, "yes"), (0.8, "yes"), (0.7, "yes, and the stretch")],
)
def test_less_can_be_better(median: float, told: str) -> None:
    assert verdict(median, Bound("<", 1.5), Bound("<", 0.8)) == told


def test_a_row_may_have_only_a_stretch_or_neither() -> None:
    assert verdict(1.0, None, Bound(">", 1)) == "no"
    assert verdict(1.1, None, Bound(">", 1)) == "the stretch"
    assert verdict(1.1, None, None) == ""


def test_every_ratio_is_turned_so_that_more_is_better(figures: Figures) -> None:
    found = {result.target.what: result for result in results(figures)}
    for figure in ("CPU per request", "requests per second"):
        plain = found[f"`POST /predict`, {figure}, against plain"]
        assert plain.measured.median == pytest.approx(2.5)
        assert plain.verdict == "yes"
    assert found["`POST /predict`, p99, against plain"].measured.median == pytest.approx(2.5)
    handtuned = found["`POST /predict`, CPU per request, against handtuned"]
    assert handtuned.measured.median == pytest.approx(0.9)
    assert handtuned.verdict == "no"


def test_what_was_not_measured_has_no_row(figures: Figures) -> None:
    parts = {result.target.part for result in results(figures)}
    assert parts == set(figures)
    assert len({target.what for target in TARGETS}) == len(TARGETS)
    assert parts < {target.part for target in TARGETS}


def test_the_table_gives_the_spread_both_sides_and_the_verdict(figures: Figures) -> None:
    lines = report.table(results(figures)).splitlines()
    assert len({len(line) for line in lines}) == 1
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells == [
        "`POST /predict`, CPU per request, against plain",
        "2.50x",
        "2.50x to 2.50x",
        "250 µs : 100 µs",
        ">= 2.5x",
        ">= 4.5x",
        "yes",
    ]


@pytest.mark.parametrize(
    ("value", "figure", "told"),
    [
        (116.2, "cpu_us", "116 µs"),
        (1_119_000, "cpu_us", "1,119 ms"),
        (3.04, "p99_ms", "3.04 ms"),
        (12_925, "rps", "12,925/s"),
        (0.5, "start_s", "0.50 s"),
        (96.25, "memory_mib", "96.2 MiB"),
        (440_912.4, "instructions", "440,912"),
    ],
)
def test_quantities_have_their_units(value: float, figure: str, told: str) -> None:
    assert report.quantity(value, figure) == told


def test_the_results_and_the_picture_are_written(figures: Figures, tmp_path: Path) -> None:
    report.write(tmp_path, results(figures), figures, ABOUT)
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["commit"] == ABOUT["commit"]
    assert document["figures"] == figures
    assert document["rows"][0]["met"] == "yes"
    for name in ("table.md", "figures.md"):
        assert "commit 0123456789ab-dirty" in (tmp_path / name).read_text()
    alone = {"predict": figures["predict"]}
    for name, drawn in (("results.png", figures), ("alone.png", alone)):
        assert picture.can_draw(drawn)
        picture.draw(tmp_path / name, drawn, report.caption(ABOUT))
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_load_beside_it_is_told() -> None:
    assert report.caption(ABOUT).endswith("load 0.2 before")
    beside = report.caption(ABOUT | {"busy_processes": 2})
    assert beside.endswith("load 0.2 before, beside 2 busy processes")


def test_how_long_each_part_took_is_told() -> None:
    told = report.durations({"predict": 90.2, "routes": 30.4})
    assert told == "It took 2.0 minutes: predict 90 s, routes 30 s."
