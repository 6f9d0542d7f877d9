"""The cost of each feature alone: `POST /predict` as it is by default, and with one thing changed.

Two starts of the same service differ by some percent for as long as they run, by where their
memory lies: so every round starts all of them anew, and one that is started as it is once more
shows how much of a difference means nothing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from app.model.manifest_file import FILE_NAME
from benchmarks import payloads, stripped
from benchmarks.bench import Bench
from benchmarks.check import PATIENT, Requests
from benchmarks.figures import rounds_of
from benchmarks.instructions import count
from benchmarks.load import Load, wrk
from benchmarks.servers import (
    ROOT,
    BenchmarkError,
    Program,
    Server,
    all_running,
    environment,
    lantern,
)

PART, COUNTED = "features", "features, instructions"
AS_IT_IS, AGAIN = "as it is", "as it is, again"
_RATE = "999999/second"
"""A rate that nobody exceeds: each request is counted, and none refused."""


@dataclass(frozen=True)
class Variant:
    """Lantern with one thing changed: by settings, or by taking a feature away; ``headers`` and
    ``bodies`` are what it is sent where that differs.
    """

    what: str
    settings: Mapping[str, str] = field(default_factory=dict)
    without: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    bodies: Path | None = None

    @property
    def program(self) -> Program:
        """Describe the server."""
        program = lantern(self.what, {**PATIENT, **self.settings})
        if not self.without:
            return program
        program = replace(program, settings={**program.settings, "WITHOUT": self.without})
        return replace(program, arguments=("benchmarks.stripped:app", *program.arguments[1:]))


LOG, FLASK = "without its log", "through Flask"
RANGES, OUTSIDE = "without ranges of training", "a value outside the range of training"
KEYS, RATE = "with a key asked for", "with a rate counted"
MISSES, HITS = "with a cache, no row twice", "with a cache, one row again and again"
WITHOUT = {each: f"without {each}" for each in stripped.TAKEN}
FEATURES = (AGAIN, LOG, *WITHOUT.values(), RANGES, OUTSIDE, KEYS, RATE, MISSES, HITS, FLASK)
"""The variants that are compared with Lantern as it is."""


def features(bench: Bench) -> None:
    """Measure `POST /predict` with each feature alone switched off or on."""
    variants = _variants(bench)
    by_name = {each.what: each for each in variants}

    def load(server: Server, seconds: float) -> Load:
        variant = by_name[server.name]
        bodies = variant.bodies or bench.varied
        return wrk(server, "/predict", seconds, bodies=bodies, headers=variant.headers)

    for in_turn in rounds_of(variants, bench.rounds):
        with all_running([each.program for each in in_turn], bench.directory) as servers:
            for server in servers:
                bench.slot(PART, server, load)


def feature_instructions(bench: Bench) -> None:
    """Count the instructions of `POST /predict` with each feature alone switched off or on."""
    counted = []
    for each in _variants(bench):
        bodies = (each.bodies or bench.varied).read_bytes().splitlines()
        requests = Requests("/predict", bodies, each.headers)
        counted.append((each.program, {each.what: requests}))
    count(bench, COUNTED, counted)


def _variants(bench: Bench) -> list[Variant]:
    settings, key = _with_key(bench.directory)
    cached = {"LANTERN_CACHE__SIZE": "4096"}
    unranged = {"LANTERN_MODEL__PATH": str(_without_ranges(bench.directory / "unranged"))}
    return [
        Variant(AS_IT_IS),
        Variant(AGAIN),
        Variant(LOG, {"LANTERN_LOGGING__LEVEL": "WARNING"}),
        *(Variant(what, without=feature) for feature, what in WITHOUT.items()),
        Variant(RANGES, unranged),
        Variant(OUTSIDE, bodies=_outside(bench.directory / "outside.jsonl")),
        Variant(KEYS, settings, headers={"Authorization": f"Bearer {key}"}),
        Variant(RATE, {"LANTERN_LIMITS__RATE": _RATE}),
        Variant(MISSES, cached),
        Variant(HITS, cached, bodies=bench.repeated),
        Variant(FLASK, {"LANTERN_SERVER__FAST_PATH": "false"}),
    ]


def _with_key(directory: Path) -> tuple[dict[str, str], str]:
    """Create a key, and return the settings that ask for it, and the key."""
    settings = {
        "LANTERN_ACCESS__AUTH": "keys",
        "LANTERN_ACCESS__KEYS_FILE": str(directory / "keys.json"),
    }
    command = [sys.executable, "-m", "app", "key", "create", "bench"]
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(settings),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if ran.returncode:
        raise BenchmarkError(f"No key could be created: {ran.stderr.strip()}")
    return settings, ran.stdout.strip()


def _without_ranges(directory: Path) -> Path:
    """Write the bundled model without the ranges of its features."""
    shutil.copytree(payloads.BUNDLE, directory / "1", dirs_exist_ok=True)
    path = directory / "1" / FILE_NAME
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for feature in manifest["features"]:
        del feature["minimum"], feature["maximum"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return directory


def _outside(path: Path) -> Path:
    """Write bodies that have one feature above its range, as many as others have."""
    feature = payloads.manifest()["features"][0]
    rows = payloads.samples(payloads.DISTINCT_BODIES)
    above = (payloads.single(row | {feature["name"]: feature["maximum"] + 1}) for row in rows)
    path.write_bytes(b"\n".join(above) + b"\n")
    return path
