"""What Lantern sets out to be beside TorchServe, LitServe and BentoML: the rows of the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.migration.cases import CASES, DIGITS
from benchmarks.migration.lantern import HANDLER
from benchmarks.migration.part import CONNECTIONS, footprint_of, part_of
from benchmarks.migration.peers import NAMES, TORCHSERVE, UNTUNED
from benchmarks.servers import LANTERN

_FASTER = 10
"""Times the requests per second of TorchServe as it starts, on the archive with a handler."""
_LESS_MEMORY = {HANDLER: 2, LANTERN: 5}


@dataclass(frozen=True)
class Row:
    """A figure of one series, divided by that of another; ``least`` is what it is to be."""

    what: str
    part: str
    figure: str
    of: str
    to: str
    least: float | None = None


def migration_rows() -> Iterator[Row]:
    """Yield the rows, each turned so that more is better."""
    for case in CASES:
        for ours in (LANTERN, HANDLER) if case == DIGITS else (LANTERN,):
            for connections in CONNECTIONS:
                yield from _under_load(case, ours, part_of(case, connections))
            yield from _alone(case, ours, footprint_of(case))


def _under_load(case: str, ours: str, part: str) -> Iterator[Row]:
    for peer in (*NAMES, UNTUNED) if case == DIGITS else NAMES:
        least = _FASTER if peer == UNTUNED else 1
        what = f"{part}: {ours} against {peer}, requests per second"
        yield Row(what, part, "rps", ours, peer, least)
    what = f"{part}: {ours} against {TORCHSERVE}"
    yield Row(f"{what}, CPU per request", part, "cpu_us", TORCHSERVE, ours)
    for p in ("p50", "p99"):
        yield Row(f"{what}, {p}", part, f"{p}_ms", TORCHSERVE, ours)


def _alone(case: str, ours: str, part: str) -> Iterator[Row]:
    what = f"{case}: {ours} against {TORCHSERVE}"
    least = _LESS_MEMORY[ours] if case == DIGITS else None
    yield Row(f"{what}, memory of two workers", part, "memory_mib", TORCHSERVE, ours, least)
    yield Row(f"{what}, start to the first answer", part, "start_s", TORCHSERVE, ours)
