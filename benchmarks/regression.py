"""Say what fell back since the last committed results: ``make bench-check``.

Times differ between machines, and between hours on one. So what is compared is not a time but its
ratio to that of a peer, which does the same in the same run; and instructions, which are counted.
Something fell back where its best round is worse than the worst of before, and its median by more
than a tolerance.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.documents.text import print_anything
from benchmarks import check, instructions, machine
from benchmarks.__main__ import RESULTS, run
from benchmarks.bench import Bench
from benchmarks.figures import Figures, Spread, ratios
from benchmarks.load import require_programs
from benchmarks.measures import peers_of
from benchmarks.peers import make_environments
from benchmarks.servers import LANTERN, BenchmarkError

ROUNDS, SECONDS = 5, 1.5
PARTS = ("check", "instructions")
_TOLERANCE = 0.02
_BETWEEN_PROCESSORS = 0.15
"""The share by which ratios differ between processors: each has other caches and another clock."""


@dataclass(frozen=True)
class Costs:
    """A cost of something in each round: where ``than`` is named, as a ratio to that of another."""

    what: str
    than: str
    values: Sequence[float]


@dataclass(frozen=True)
class Change:
    """A cost before and now."""

    what: str
    than: str
    before: Spread
    now: Spread
    tolerance: float

    @property
    def share(self) -> float:
        """The part by which it costs more now, as a share of before."""
        return self.now.median / self.before.median - 1

    @property
    def is_fall(self) -> bool:
        """True if it costs more, beyond the spread of both and the tolerance."""
        return self.share > self.tolerance and self.now.lowest > self.before.highest

    @property
    def is_gain(self) -> bool:
        """True if it costs less, likewise."""
        return self.share < -self.tolerance and self.now.highest < self.before.lowest

    def __str__(self) -> str:
        """Say what changed, and by how much."""
        how = "fell back" if self.is_fall else "gained" if self.is_gain else "is as before"
        by = f" by {abs(self.share):.0%}" if self.is_fall or self.is_gain else ""
        now, before = _told(self.now), _told(self.before)
        cost = f"{now} times the CPU of {self.than}" if self.than else f"{now} instructions"
        return f"{self.what} {how}{by}: {cost}, and {before} before."


def costs(figures: Figures) -> Iterator[Costs]:
    """Yield what can be compared of the figures of a run."""
    checked = figures.get(check.PART, {})
    for ours, theirs in check.COMPARED.items():
        if ours in checked and theirs in checked:
            values = ratios(checked[ours]["cpu_us"], checked[theirs]["cpu_us"])
            yield Costs(ours, theirs, values)
    for who, series in figures.get(instructions.PART, {}).items():
        if who.startswith(LANTERN):
            yield Costs(who, "", series["instructions"])


def changes(before: Figures, now: Figures, between_processors: bool = False) -> list[Change]:
    """Compare what both runs have."""
    earlier = {(each.what, each.than): each for each in costs(before)}
    found = []
    for each in costs(now):
        if (each.what, each.than) in earlier:
            spreads = Spread.of(earlier[each.what, each.than].values), Spread.of(each.values)
            # A count of instructions is the same on any processor.
            wide = between_processors and each.than
            tolerance = _BETWEEN_PROCESSORS if wide else _TOLERANCE
            found.append(Change(each.what, each.than, *spreads, tolerance))
    return found


def missing(before: Figures, now: Figures) -> list[str]:
    """Say what only one of two runs has."""
    sides = [{_name(each) for each in costs(figures)} for figures in (before, now)]
    return [
        *(f"{name} was measured before, and not now." for name in sorted(sides[0] - sides[1])),
        *(f"{name} is measured now, and was not before." for name in sorted(sides[1] - sides[0])),
    ]


def committed(directory: Path, processor: str) -> dict[str, Any] | None:
    """Return the newest results in ``directory`` that can be compared, of this processor if any."""
    found = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(directory.rglob("results.json"))
    ]
    fit = [each for each in found if list(costs(each["figures"]))]
    return max(
        fit,
        key=lambda each: (each["machine"]["cpu"] == processor, each["measured_at"]),
        default=None,
    )


def judge(before: dict[str, Any], now: Figures, processor: str) -> tuple[list[str], bool]:
    """Say in sentences what became of what was committed, and whether anything fell back."""
    theirs = before["machine"]["cpu"]
    said = [f"Compared with {before['commit'][:12]}, measured at {before['measured_at']}."]
    if theirs != processor:
        said.append(
            f"That was on another processor, {theirs}, and this is {processor}: ratios differ "
            f"between them, so only more than {_BETWEEN_PROCESSORS:.0%} counts."
        )
    found = changes(before["figures"], now, theirs != processor)
    said += map(str, sorted(found, key=lambda change: not change.is_fall))
    return said + missing(before["figures"], now), any(change.is_fall for change in found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and compare; return 1 if something fell back, or went wrong, and else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regression", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each is run")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each time")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to look for results")
    options = parser.parse_args(arguments)
    print_anything()
    require_programs()
    processor = machine.describe()["cpu"]
    before = committed(options.results, processor)
    if before is None:
        print(
            f"Nothing in {options.results} can be compared. To have it: python -m benchmarks "
            f"--only {','.join(PARTS)} --out {RESULTS / 'check'}"
        )
        return 0
    make_environments(peers_of(PARTS))
    with tempfile.TemporaryDirectory(prefix="lantern-bench-") as directory:
        bench = Bench(options.rounds, options.seconds, Path(directory))
        run(PARTS, bench)
    said, fell = judge(before, bench.figures, processor)
    print("\n" + "\n".join(said))
    return 1 if fell or bench.faults else 0


def _name(cost: Costs) -> str:
    return f"{cost.what}, against {cost.than}," if cost.than else f"{cost.what}, in instructions,"


def _told(spread: Spread) -> str:
    return f"{_number(spread.median)} ({_number(spread.lowest)} to {_number(spread.highest)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"Nothing was measured. {error}")
    except KeyboardInterrupt:
        sys.exit(130)
