"""Soak Lantern: ``python -m trials.soak --minutes 10 --out artifacts/soak``.

Three workers at 80 % of what saturates this machine, while releases change, workers are killed and
clients do wrong. Afterwards nothing may be left behind and every failure must have its reason.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.documents.text import print_anything
from benchmarks import machine
from benchmarks.servers import BenchmarkError
from trials.load import Tally
from trials.soak import picture
from trials.soak.run import WORKERS, Options, Outcome, run

OUT = Path("artifacts", "soak")


def main() -> int:
    """Soak, write the report and the picture, and give the exit status."""
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m trials.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=defaults.minutes)
    parser.add_argument(
        "--share", type=float, default=defaults.share, help="of the rate that saturates"
    )
    parser.add_argument(
        "--hostile-requests", type=float, default=defaults.hostile_requests, help="a second"
    )
    parser.add_argument("--most-growth-percent", type=float, default=defaults.most_growth_percent)
    parser.add_argument("--most-refused-percent", type=float, default=defaults.most_refused_percent)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--out", type=Path, default=OUT, help="where report and picture go")
    given = vars(parser.parse_args())
    print_anything()
    out: Path = given.pop("out")
    options = Options(**given)
    if shutil.which("setpriv") is None:
        parser.error("setpriv is needed (Debian's package util-linux).")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, and so stops the server
    commit = machine.commit()
    about = {
        "commit": commit,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": asdict(options),
        "machine": machine.describe(),
        "load_average_before": machine.load_average(),
    }
    with tempfile.TemporaryDirectory(prefix="lantern-soak-") as directory:
        outcome = run(options, Path(directory))
    out.mkdir(parents=True, exist_ok=True)
    report = about | summary(outcome) | {"samples": series(outcome)}
    (out / "soak.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    caption = (
        f"{WORKERS} workers, {options.minutes:g} minutes, commit {commit[:12]}; "
        "a line is a change of the release, the end of a worker, or a reload"
    )
    tallies = list(outcome.tallies.values())
    picture.draw(out / "soak.png", tallies, outcome.samples, outcome.events, caption)
    print(f"{table(outcome)}\n\nWritten to {out}")
    for fault in outcome.faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    return 1 if outcome.faults else 0


def table(outcome: Outcome) -> str:
    """Write what came of a soak, for people."""
    lines = [
        "| phase | seconds | sent | answered right | refused | failed | slowest, ms | hostile |"
    ]
    lines += ["| --- |" + " ---: |" * 7]
    for name, tally in outcome.tallies.items():
        cells = _of_load(tally)
        lines.append(
            f"| {name} | {cells['seconds']:,.0f} | {cells['sent']:,} | {cells['right']:,} "
            f"| {cells['refused']:,} | {cells['failed']:,} | {cells['slowest_ms']:,.0f} "
            f"| {outcome.hostile[name].answers.total():,} |"
        )
    lines += ["", "| memory of | MiB at first | growth |", "| --- | ---: | ---: |"]
    lines += [f"| {g.what} | {g.mib:.1f} | {g.percent:+.2f} % |" for g in outcome.growths]
    for when, held in (("before", outcome.before), ("after", outcome.after)):
        lines.append(f"| all processes at rest, {when} | {held.tree_mib if held else 0:.1f} | |")
    kinds = Counter(event.what.partition(" --")[0] for event in outcome.events)
    lines += ["", "| what happened | times |", "| --- | ---: |"]
    lines += [f"| {what} | {count} |" for what, count in sorted(kinds.items())]
    lines += ["", "| answers by status, as the service counts them | |", "| --- | ---: |"]
    lines += [f"| {status} | {count:,.0f} |" for status, count in sorted(outcome.statuses.items())]
    return "\n".join(lines)


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return what came of a soak, without its series."""
    return {
        "faults": outcome.faults,
        "saturated_rps": round(outcome.saturated),
        "cores_of_the_server_saturated": round(outcome.cpu_saturated, 2),
        "cores_of_the_server": round(outcome.cpu, 2),
        "phases": {name: _of_load(tally) for name, tally in outcome.tallies.items()},
        "growth": [
            {"of": one.what, "mib": round(one.mib, 2), "percent": round(one.percent, 2)}
            for one in outcome.growths
        ],
        "mib_of_all_at_rest": [
            round(held.tree_mib, 1) for held in (outcome.before, outcome.after) if held
        ],
        "statuses": {str(status): n for status, n in sorted(outcome.statuses.items())},
        "hostile": {
            f"{name}: {status or 'no answer'}": count
            for (name, status), count in sorted(outcome.hostile["soak"].answers.items())
        },
        "events": [
            {"second": round(one.ended - outcome.tallies["warm-up"].began, 1), "what": one.what}
            for one in outcome.events
        ],
    }


def series(outcome: Outcome) -> list[dict[str, Any]]:
    """Return what the processes held while they were soaked: memory in MiB."""
    zero = outcome.tallies["warm-up"].began
    return [
        {
            "second": round(sample.at - zero, 1),
            "all_mib": round(sample.tree_mib, 2),
            "master_mib": round(sample.master.resident, 2),
            "workers_mib": {
                str(pid): round(one.resident, 2) for pid, one in sample.workers.items()
            },
            "descriptors": sample.master.descriptors
            + sum(one.descriptors for one in sample.workers.values()),
        }
        for sample in outcome.samples
    ]


def _of_load(tally: Tally) -> dict[str, Any]:
    seconds = tally.seconds.values()
    return {
        "seconds": round(tally.ended - tally.began, 1),
        "due": tally.due,
        "sent": tally.sent,
        "right": tally.right,
        "right_rps": round(tally.rate),
        "refused": tally.refused,
        "failed": tally.failed,
        "slowest_ms": round(max((one.slowest_ms for one in seconds), default=0.0), 1),
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"The soak could not be run. {error}")
    except KeyboardInterrupt:
        sys.exit(130)
