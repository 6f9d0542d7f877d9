"""Run the benchmarks: ``python -m benchmarks``, or a part of them: ``--only predict --rounds 2``.

Servers listen on loopback and end with this program, however it ends.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from app.documents.text import print_anything
from app.worker.cores import usable_cores
from benchmarks import agreement, machine, picture, report
from benchmarks.bench import Bench
from benchmarks.busy import busy
from benchmarks.load import require_programs
from benchmarks.measures import PARTS, beside, peers_of
from benchmarks.peers import make_environments
from benchmarks.servers import BenchmarkError, all_running
from benchmarks.targets import results

RESULTS = Path(__file__).resolve().parent / "results"
ROUNDS, SECONDS = 5, 4.0
_QUIET = 0.5
"""A load average that others' work on the machine should stay under."""
_LONGEST_SECONDS = 3 * 3600.0
"""After this, busy processes end whatever happened to this program."""


def main() -> int:
    """Measure, report, and give the exit status: 1 when anything went wrong in a measurement."""
    options = _options()
    print_anything()
    parts = [name for name in PARTS if name in options.only and name not in options.skip]
    full = (parts, options.rounds, options.seconds) == (list(PARTS), ROUNDS, SECONDS)
    processes = usable_cores() if options.beside_load else 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, and so stops the servers
    about: dict[str, Any] = {
        "commit": machine.commit(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "machine": machine.describe(),
        "load_average_before": machine.load_average(),
        "busy_processes": processes,
    }
    if about["load_average_before"] > _QUIET:
        print(f"This machine is busy (load {about['load_average_before']}): expect wide ranges.")
    make_environments(peers_of(parts))
    with (
        tempfile.TemporaryDirectory(prefix="lantern-bench-") as directory,
        busy(processes, _LONGEST_SECONDS),
    ):
        bench = Bench(options.rounds, options.seconds, Path(directory))
        about["part_seconds"] = run(parts, bench)
    about["faults"] = bench.faults
    _tell(bench, about, options.out or (RESULTS if full and not processes else None))
    for fault in bench.faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    return 1 if bench.faults else 0


def run(parts: Sequence[str], bench: Bench) -> dict[str, float]:
    """Run parts, once the peers that they need answer alike; return the seconds that each took.

    The peers' environments are there. A part that fails leaves no figures, and the others run all
    the same.
    """
    took: dict[str, float] = {}
    began = monotonic()
    if peers := peers_of(parts):
        with all_running(beside(peers), bench.directory) as servers:
            agreement.check(servers)
        print("All servers answer alike.", flush=True)
        took["agreement"] = monotonic() - began
    for name in parts:
        print(f"{name}: {PARTS[name].__doc__ or ''}".partition("\n")[0], flush=True)
        before, began = set(bench.figures), monotonic()
        try:
            PARTS[name](bench)
        except BenchmarkError as error:
            bench.fault(name, str(error))
            for series in set(bench.figures) - before:
                del bench.figures[series]
        took[name] = monotonic() - began
    return took


def _tell(bench: Bench, about: dict[str, Any], out: Path | None) -> None:
    """Print what came of it, and write it to the directory ``out``."""
    found = results(bench.figures)
    print(f"\n{report.table(found)}\n\n{report.series_table(bench.figures)}\n")
    print(report.durations(about["part_seconds"]))
    if out is None:
        return
    report.write(out, found, bench.figures, about)
    if picture.can_draw(bench.figures):
        picture.draw(out / "results.png", bench.figures, report.caption(about))
    if picture.can_draw_overload(bench.figures):
        picture.draw_overload(out / "overload.png", bench.figures, report.caption(about))
    print(f"\nWritten to {out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join(PARTS)
    parser.add_argument("--rounds", type=_positive, default=ROUNDS, help="how often each is run")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each time")
    parser.add_argument("--only", type=_parts, default=list(PARTS), help=f"parts of: {names}")
    parser.add_argument("--skip", type=_parts, default=[], help="parts, with commas between them")
    parser.add_argument("--out", type=Path, help="where to write; a full run: benchmarks/results")
    parser.add_argument(
        "--beside-load", action="store_true", help="beside a busy process for each core"
    )
    options = parser.parse_args()
    require_programs()
    return options


def _parts(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PARTS)}")
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"Nothing was measured. {error}")
    except KeyboardInterrupt:
        sys.exit(130)
