"""The report: the table for people, and everything, round by round, for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Figures, Spread
from benchmarks.targets import Bound, Result, Unit

_MEASURED = {
    "rps": "requests per second",
    "p50_ms": "p50",
    "p99_ms": "p99",
    "cpu_us": "CPU per request",
    "memory_mib": "memory",
    "start_s": "start to the first answer",
    "instructions": "instructions per request",
}
_UNITS = {"us": "µs", "ms": "ms", "s": "s", "mib": "MiB", "rps": "/s", "instructions": ""}
_HEADER = ("what", "measured", "lowest to highest", "of what", "target", "stretch", "met")


def table(results: Sequence[Result]) -> str:
    """Write the results as a table in Markdown, its columns aligned."""
    rows = [_HEADER, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def series_table(figures: Figures) -> str:
    """Write what was measured of each server: medians, and the range beside them."""
    series = [each for by_server in figures.values() for each in by_server.values()]
    names = [name for name in _MEASURED if any(name in each for each in series)]
    lines = ["| | server | " + " | ".join(_MEASURED[name] for name in names) + " |"]
    lines.append("|" + " --- |" * (2 + len(names)))
    for part, by_server in figures.items():
        for server, each in by_server.items():
            cells = [_spread(Spread.of(each[name]), name) if name in each else "" for name in names]
            lines.append(f"| {part} | {server} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(
    directory: Path, results: Sequence[Result], figures: Figures, about: dict[str, Any]
) -> None:
    """Write ``table.md``, ``figures.md`` and ``results.json`` into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    text = (
        f"{table(results)}\n\n"
        "A ratio is taken within a round and turned so that more is better; the table gives the\n"
        "median over the rounds, and what was divided by what.\n\n"
        f"{caption(about)}\n"
    )
    (directory / "table.md").write_text(text, encoding="utf-8")
    text = f"{series_table(figures)}\n\nMedians, and lowest to highest. {caption(about)}.\n"
    (directory / "figures.md").write_text(text, encoding="utf-8")
    document = {
        **about,
        "rows": [
            {
                "what": result.target.what,
                "unit": result.target.unit,
                "median": result.measured.median,
                "lowest": result.measured.lowest,
                "highest": result.measured.highest,
                "target": _bound(result.target.target, result.target.unit),
                "stretch": _bound(result.target.stretch, result.target.unit),
                "met": result.verdict,
            }
            for result in results
        ],
        "figures": figures,
    }
    (directory / "results.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def durations(seconds: Mapping[str, float]) -> str:
    """Say how long each part took."""
    each = ", ".join(f"{part} {took:.0f} s" for part, took in seconds.items())
    return f"It took {sum(seconds.values()) / 60:.1f} minutes: {each}."


def caption(about: dict[str, Any]) -> str:
    """Say in a line where and how the figures were taken."""
    machine = about["machine"]
    busy = about.get("busy_processes", 0)
    return (
        f"{about['rounds']} rounds of {about['seconds']:g} s, at commit {about['commit'][:12]}"
        f"{'-dirty' if about['commit'].endswith('-dirty') else ''}, on {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}, load {about['load_average_before']:.1f} before"
        + (f", beside {busy} busy processes" if busy else "")
    )


def quantity(value: float, figure: str) -> str:
    """Write a figure with its unit: ``quantity(116.2, "cpu_us")`` is ``116 µs``."""
    unit = _UNITS[figure.rsplit("_", maxsplit=1)[-1]]
    if unit == "µs" and value >= 10_000:
        value, unit = value / 1000, "ms"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}".replace(" /s", "/s").rstrip()


def _spread(spread: Spread, figure: str) -> str:
    if spread.lowest == spread.highest:
        return quantity(spread.median, figure)
    sides = (quantity(side, figure) for side in (spread.lowest, spread.highest))
    return f"{quantity(spread.median, figure)} ({' to '.join(sides)})"


def _row(result: Result) -> tuple[str, ...]:
    target, spread = result.target, result.measured
    sides = [quantity(side, target.figure) for side in (result.of, result.to) if side is not None]
    return (
        target.what,
        _value(spread.median, target.unit),
        f"{_value(spread.lowest, target.unit)} to {_value(spread.highest, target.unit)}",
        " : ".join(sides),
        _bound(target.target, target.unit),
        _bound(target.stretch, target.unit),
        result.verdict,
    )


def _value(value: float, unit: Unit) -> str:
    return f"{value:.2f}x" if unit == "x" else quantity(value, unit.lower())


def _bound(bound: Bound | None, unit: Unit) -> str:
    if bound is None:
        return ""
    written = {"x": "x", "us": " µs"}.get(unit, f" {unit}")
    return f"{bound.sign} {bound.value:g}{written}"
