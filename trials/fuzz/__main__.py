"""Fuzz Lantern: ``python -m trials.fuzz --requests 200000 --seed 7``.

Bytes that are nearly HTTP, bodies that are nearly right, documents from hypothesis, and all that
schemathesis finds in the API's own description, at two keep-alive workers. There must be no 500, no
request without an end and no dead worker, and every refusal must be a problem document. An input
that goes wrong is written to a file; ``--replay FILE`` sends it again and prints what comes back.
At the end it looks for the body that costs the most CPU for its size (``trials/fuzz/costs.py``).
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from app.documents.text import print_anything
from benchmarks.servers import BenchmarkError, running
from tests.worker.wire import exchange
from trials.fuzz import costs
from trials.fuzz.run import PARTS, Options, Outcome, run, service

_MAX_TOLD = 20
OUT = Path("artifacts", "fuzz")


def main() -> int:
    """Fuzz, print what came of it, write what went wrong, and give the exit status."""
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m trials.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=defaults.requests, help="in all, at least")
    parser.add_argument("--seed", type=int, help="of everything that is made; printed")
    parser.add_argument("--only", choices=PARTS, help="one part alone, with all of the requests")
    parser.add_argument("--out", type=Path, default=OUT, help="where inputs that go wrong go")
    parser.add_argument("--replay", type=Path, help="a file to send as it is, and nothing else")
    given = parser.parse_args()
    print_anything()
    if shutil.which("setpriv") is None:
        parser.error("setpriv is needed (Debian's package util-linux).")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, and so stops the server
    with tempfile.TemporaryDirectory(prefix="lantern-fuzz-") as name:
        directory = Path(name)
        if given.replay:
            with running(service(), directory) as server:
                received = exchange(("127.0.0.1", server.port), given.replay.read_bytes())
                print(received.decode("latin-1"))
                print(server.log.read_text(encoding="utf-8", errors="replace"), file=sys.stderr)
            return 0
        seed = random.SystemRandom().getrandbits(32) if given.seed is None else given.seed
        print(f"seed {seed}", flush=True)
        outcome = run(Options(given.requests, seed, given.only), directory)
    print(table(outcome))
    write(outcome, given.out)
    if given.only is None:
        dear = costs.in_fresh_processes((costs.VALID, *costs.SHAPES, *costs.dearest(seed=seed)))
        print("\nWhat bodies cost, the dearest first:\n\n" + costs.table(dear))
        outcome.faults += costs.faults(dear)
    for fault in outcome.faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    return 1 if outcome.faults else 0


def table(outcome: Outcome) -> str:
    """Write how many requests were answered how, part by part, for people."""
    statuses = sorted({status for counts in outcome.statuses.values() for status in counts})
    lines = [
        "| part | seconds | sent | " + " | ".join(map(str, statuses)) + " |",
        "| --- |" + " ---: |" * (len(statuses) + 2),
    ]
    for part, counts in outcome.statuses.items():
        cells = [f"{outcome.seconds[part]:,.0f}", f"{outcome.sent[part]:,}"]
        cells += [f"{counts[status]:,}" if counts[status] else "" for status in statuses]
        lines.append(f"| {part} | " + " | ".join(cells) + " |")
    lines.append(f"\n{outcome.requests:,} requests in all")
    return "\n".join(lines)


def write(outcome: Outcome, out: Path) -> None:
    """Write each input that went wrong into a file of its own."""
    for number, (conversation, what) in enumerate(outcome.wrong):
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{conversation.name}.bin"
        path.write_bytes(conversation.data)
        if number < _MAX_TOLD:
            print(f"{path}: {what[:300]}", file=sys.stderr)
    if len(outcome.wrong) > _MAX_TOLD:
        print(f"and {len(outcome.wrong) - _MAX_TOLD} more in {out}", file=sys.stderr)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"The fuzz run could not be made. {error}")
    except KeyboardInterrupt:
        sys.exit(130)
