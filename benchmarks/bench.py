"""One run of the benchmarks: its length, its files, and what it has measured so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks import payloads
from benchmarks.figures import Figures
from benchmarks.load import Load, measured
from benchmarks.servers import Server

LoadOn = Callable[[Server, float], Load]
"""A load to put on a server for some seconds."""

_WARM_UP = 0.2
"""The share of a slot that runs before the first of its kind on a server, unmeasured."""

_LEAST_WARM_UP = 0.3


@dataclass
class Bench:
    """What the parts share. ``seconds`` is the length of a slot, ``directory`` a temporary one."""

    rounds: int
    seconds: float
    directory: Path
    figures: Figures = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    _warm: set[tuple[str, str, int]] = field(default_factory=set)

    @cached_property
    def varied(self) -> Path:
        """A file of bodies of ``POST /predict``, none like the other."""
        return payloads.write_bodies(self.directory / "varied.jsonl", payloads.DISTINCT_BODIES)

    @cached_property
    def complete(self) -> Path:
        """The same without nulls, which a bare checkpoint has no answer to."""
        return payloads.write_bodies(
            self.directory / "complete.jsonl", payloads.DISTINCT_BODIES, nulls=0
        )

    @cached_property
    def repeated(self) -> Path:
        """A file of one such body."""
        return payloads.write_bodies(self.directory / "repeated.jsonl", 1)

    def slot(self, part: str, server: Server, load: LoadOn, who: str = "") -> None:
        """Measure a server under ``load``, and note all of it as that of ``who``; before the first
        time, warm it up.

        A fault in it (an answer that isn't 2xx, a connection that broke) is noted, too, and fails
        the run. ``who`` is the server's name unless given.
        """
        who = who or server.name
        faults: list[str] = []
        slot = part, who, server.process.pid
        if slot not in self._warm:
            self._warm.add(slot)
            faults += load(server, max(_LEAST_WARM_UP, self.seconds * _WARM_UP)).faults
        seen = measured(server, lambda: load(server, self.seconds))
        server.forget_log()
        for fault in (*faults, *seen.load.faults):
            self.fault(part, f"{who}: {fault}")
        self.record(
            part,
            who,
            cpu_us=seen.cpu_us,
            busiest_share=seen.busiest_share,
            rps=seen.load.requests_per_second,
            p50_ms=seen.load.p50_ms,
            p99_ms=seen.load.p99_ms,
            requests=seen.load.requests,
        )

    def record(self, part: str, who: str, **values: float) -> None:
        """Note one round's values of ``who``."""
        series = self.figures.setdefault(part, {}).setdefault(who, {})
        for name, value in values.items():
            series.setdefault(name, []).append(value)
        told = ", ".join(f"{name} {value:,.4g}" for name, value in values.items())
        print(f"  {part}, {who}: {told}", flush=True)

    def skip(self, part: str, why: str) -> None:
        """Print that a part can't be measured here, which is no fault."""
        print(f"  {part}: not measured, because {why}.", flush=True)

    def fault(self, part: str, what: str) -> None:
        """Note that a measurement went wrong, which fails the run."""
        self.faults.append(f"{part}, {what.strip()}")
        print(f"  FAULT: {self.faults[-1]}", flush=True)
