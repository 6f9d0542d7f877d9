"""A short series in which nothing may fall back, beside a peer: what ``make bench-check`` runs.

Two starts of the same service differ by some percent for as long as they run, so every round
starts them anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import payloads
from benchmarks.bench import Bench, LoadOn
from benchmarks.figures import rounds_of
from benchmarks.load import Load, batches, wrk
from benchmarks.servers import LANTERN, Program, Server, all_running, lantern, peer

PART = "check"
REFERENCE = "handtuned"
INFERENCE, FLASK = f"{LANTERN}, Open Inference Protocol", f"{LANTERN}, through Flask"
INFO = f"{LANTERN}, GET /model/info"
ROWS = 1_000
BATCH, REFERENCE_BATCH = (f"{name}, batch of {ROWS:,}" for name in (LANTERN, REFERENCE))
COMPARED = {
    LANTERN: REFERENCE,
    INFERENCE: REFERENCE,
    FLASK: REFERENCE,
    INFO: REFERENCE,
    BATCH: REFERENCE_BATCH,
}
"""The figures of Lantern that are compared, each with one of the peer."""
PATIENT = {"LANTERN_LIMITS__QUEUE_BUDGET_MS": "60000"}
"""Refuse nothing, even where the machine is so busy that requests wait for long."""
_SINGLE = 500


@dataclass(frozen=True)
class Requests:
    """A path, and the bodies that are sent to it in turn, with ``headers``."""

    path: str
    bodies: Sequence[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)


def check(bench: Bench) -> None:
    """Measure what ``make bench-check`` compares with what was committed."""
    for in_turn in rounds_of(programs(), bench.rounds):
        with all_running(in_turn, bench.directory) as servers:
            for server in servers:
                for who, load in _loads(bench, server.name).items():
                    bench.slot(PART, server, load, who)


def programs() -> list[Program]:
    """Return Lantern, Lantern without its fast path, and the peer."""
    through_flask = PATIENT | {"LANTERN_SERVER__FAST_PATH": "false"}
    return [lantern(settings=PATIENT), lantern(FLASK, through_flask), peer(REFERENCE)]


def single_rows(name: str) -> dict[str, Requests]:
    """Return what a server is sent of single rows, and what that is noted as."""
    rows = payloads.samples(_SINGLE)
    found = {name: Requests("/predict", [payloads.single(row) for row in rows])}
    if name == LANTERN:
        complete = payloads.samples(_SINGLE, nulls=0)
        bodies = [payloads.inference([row]) for row in complete]
        found[INFERENCE] = Requests(payloads.INFER, bodies)
    return found


def _loads(bench: Bench, name: str) -> dict[str, LoadOn]:
    """Return the loads of a server, by what they are noted as."""
    found: dict[str, LoadOn] = {}
    for number, (who, requests) in enumerate(single_rows(name).items()):
        lines = bench.directory / f"check-{number}.jsonl"
        lines.write_bytes(b"\n".join(requests.bodies) + b"\n")
        found[who] = partial(_post, requests.path, lines)
    if name == LANTERN:
        found[INFO] = lambda server, seconds: wrk(server, "/model/info", seconds)
    if name != FLASK:
        found[BATCH if name == LANTERN else REFERENCE_BATCH] = _post_batches
    return found


def _post(path: str, lines: Path, server: Server, seconds: float) -> Load:
    return wrk(server, path, seconds, bodies=lines)


def _post_batches(server: Server, seconds: float) -> Load:
    bodies = [payloads.batch(payloads.samples(ROWS, seed)) for seed in range(4)]
    return batches(server, "/predict/batch", seconds, bodies)
