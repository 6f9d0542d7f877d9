"""A candidate beside the stable version: what callers feel of a canary and of a shadow.

The candidate is the bundled model once more, so both versions cost the same. It is measured under
saturated connections, and at 80 % of the peak, where latencies count from when a request fell due.

Two starts of the same service differ by 3 to 6 % for as long as they run, by where their memory
lies: so every round starts all of them anew, and a second service without a candidate shows how
much of a difference means nothing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from app.model.manifest_file import FILE_NAME
from app.registry.release import Release, write_release
from benchmarks.bench import Bench
from benchmarks.figures import rounds_of
from benchmarks.load import Load, wrk
from benchmarks.offered import offer, saturate
from benchmarks.payloads import BUNDLE
from benchmarks.servers import Server, all_running, lantern

ALONE, AGAIN = "no candidate", "no candidate either"
CANARY, SHADOW = "canary of 0.2", "shadow"
RELEASES = {
    ALONE: Release("1"),
    AGAIN: Release("1"),
    CANARY: Release("1", "2", "canary", 0.2),
    SHADOW: Release("1", "2", "shadow"),
}
SATURATED, AT_80 = "candidates, saturated", "candidates, at 80 % of the peak"
_LOAD = 0.8


def candidates(bench: Bench) -> None:
    """Measure `POST /predict` with a canary and with a shadow beside the model, and without."""
    programs = [
        lantern(who, {"LANTERN_MODEL__PATH": str(_model(bench.directory / who, release))})
        for who, release in RELEASES.items()
    ]

    def load(server: Server, seconds: float) -> Load:
        return wrk(server, "/predict", seconds, bodies=bench.varied)

    bodies = bench.varied.read_bytes().splitlines()
    for in_turn in rounds_of(programs, bench.rounds):
        with all_running(in_turn, bench.directory) as servers:
            for server in servers:
                bench.slot(SATURATED, server, load)
            peak = min(saturate(server, "/predict", bodies, bench.seconds) for server in servers)
            for server in servers:
                _offer(bench, server, peak * _LOAD, bodies)


def _offer(bench: Bench, server: Server, rate: float, bodies: list[bytes]) -> None:
    seen = offer(server, "/predict", bodies, rate, bench.seconds)
    server.forget_log()
    for fault in seen.faults:
        bench.fault(AT_80, f"{server.name}: {fault}")
    bench.record(
        AT_80,
        server.name,
        offered_rps=seen.offered / seen.seconds,
        rps=seen.count(200) / seen.lasted,
        p50_ms=seen.quantile_ms(200, 0.5),
        p99_ms=seen.quantile_ms(200, 0.99),
        slowest_ms=seen.quantile_ms(200, 1.0),
    )


def _model(directory: Path, release: Release) -> Path:
    """Write the bundled model as versions 1 and 2, and the release."""
    for version in ("1", "2"):
        shutil.copytree(BUNDLE, directory / version)
        manifest = directory / version / FILE_NAME
        text = json.loads(manifest.read_text(encoding="utf-8")) | {"version": version}
        manifest.write_text(json.dumps(text), encoding="utf-8")
    write_release(directory, release)
    return directory
