"""Run the benchmarks: ``python -m benchmarks``, or a part of them: ``--only predict --rounds 2``.

Servers listen on loopback and end with this program, however it ends.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.documents.text import print_anything
from benchmarks import agreement, machine, picture, report
from benchmarks.bench import Bench
from benchmarks.measures import PARTS, WITH_PEERS, everyone
from benchmarks.migration.part import migration_parts
from benchmarks.peers import make_environments
from benchmarks.servers import BenchmarkError, all_running
from benchmarks.targets import results

RESULTS = Path(__file__).resolve().parent / "results"
ROUNDS, SECONDS = 5, 4.0
_QUIET = 0.5
"""A load average that others' work on the machine should stay under."""


def main() -> int:
    """Measure, report, and give the exit status: 1 when anything went wrong in a measurement."""
    options = _options()
    print_anything()
    parts = [name for name in PARTS if name in options.only and name not in options.skip]
    full = (parts, options.rounds, options.seconds) == (list(PARTS), ROUNDS, SECONDS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, and so stops the servers
    about: dict[str, Any] = {
        "commit": machine.commit(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "machine": machine.describe(),
        "load_average_before": machine.load_average(),
    }
    if about["load_average_before"] > _QUIET:
        print(f"This machine is busy (load {about['load_average_before']}): expect wide ranges.")
    with tempfile.TemporaryDirectory(prefix="lantern-bench-") as directory:
        bench = Bench(options.rounds, options.seconds, Path(directory))
        if WITH_PEERS & set(parts):
            make_environments()
            with all_running(everyone(), bench.directory) as servers:
                agreement.check(servers)
            print("All servers answer alike.", flush=True)
        for name in parts:
            _run(name, bench)
    about["faults"] = bench.faults
    _tell(bench, about, parts, options.out or (RESULTS if full else None))
    for fault in bench.faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    return 1 if bench.faults else 0


def _tell(bench: Bench, about: dict[str, Any], parts: list[str], out: Path | None) -> None:
    """Print what came of it, and write it to the directory ``out``."""
    found = results(bench.figures)
    print(f"\n{report.table(found)}")
    migrated = ""
    if "migration" in parts:
        migrated = report.series_table(bench.figures, migration_parts())
        print(f"\n{migrated}")
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    report.write(out, found, bench.figures, about)
    if migrated:
        load = f"the load of the machine was {about['load_average_before']:.1f} before"
        text = f"{migrated}\n\n{report.caption(about)}; {load}.\n"
        (out / "migration.md").write_text(text, encoding="utf-8")
    if picture.can_draw(bench.figures):
        picture.draw(out / "results.png", bench.figures, report.caption(about))
    if picture.can_draw_overload(bench.figures):
        picture.draw_overload(out / "overload.png", bench.figures, report.caption(about))
    print(f"\nWritten to {out}")


def _run(name: str, bench: Bench) -> None:
    """Run one part; one that fails leaves no figures, and the others run all the same."""
    print(f"{name}: {PARTS[name].__doc__ or ''}".partition("\n")[0], flush=True)
    before = set(bench.figures)
    try:
        PARTS[name](bench)
    except BenchmarkError as error:
        bench.fault(name, str(error))
        for series in set(bench.figures) - before:
            del bench.figures[series]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join(PARTS)
    parser.add_argument("--rounds", type=_positive, default=ROUNDS, help="how often each is run")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each time")
    parser.add_argument("--only", type=_parts, default=list(PARTS), help=f"parts of: {names}")
    parser.add_argument("--skip", type=_parts, default=[], help="parts, with commas between them")
    parser.add_argument("--out", type=Path, help="where to write; a full run: benchmarks/results")
    options = parser.parse_args()
    if shutil.which("wrk") is None or shutil.which("setpriv") is None:
        parser.error("wrk and setpriv are needed (Debian's packages wrk and util-linux).")
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
