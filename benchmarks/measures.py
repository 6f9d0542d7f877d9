"""The measurements, a function each; `PARTS` lists them in the order in which they run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import checkpoints, payloads
from benchmarks.bench import Bench, LoadOn
from benchmarks.candidates import candidates
from benchmarks.check import REFERENCE, check
from benchmarks.connections import PEERS as CHEAP_PEERS
from benchmarks.connections import connections, pipelining, proxied
from benchmarks.features import feature_instructions, features
from benchmarks.figures import interleaved
from benchmarks.inference import inference
from benchmarks.instructions import instructions
from benchmarks.load import Load, batches, exchange, wrk
from benchmarks.migration.part import migration
from benchmarks.overload import overload
from benchmarks.processes import proportional_mib
from benchmarks.servers import (
    LANTERN,
    PEER_NAMES,
    BenchmarkError,
    Program,
    Server,
    all_running,
    lantern,
    peer,
    running,
)
from benchmarks.slow import SlowConnections

BATCH_SIZES = (1_000, 10_000)
GTHREAD = "gthread"
ROUTES = ("/health/live", "/model/info")
"""FastAPI has the first of them, too."""
FASTAPI = "tuned"
THROUGH_FLASK = "predictions through Flask"
SLOW_CLIENTS = 500
ALONE, BESIDE_SLOW = "alone", f"beside {SLOW_CLIENTS} slow clients"
_LEAST_OPEN = 0.98
"""Some may be on their way from a connection that the server gave up to the next."""
LARGE_WIDTH = 11_500
"""Units of a hidden layer, so that the weights of the network are 505 MiB."""
SLOW_WIDTH = 7_000
"""Units of a hidden layer, so that a row takes more than 5 ms: it reads 196 MB of weights."""
_ASK_SECONDS = 120
VARIED, REPEATED = "varied rows", "a repeated row"

# What the two parts on features of Lantern compare: the name in the tables, and the settings.
CACHE_VARIANTS: dict[str, dict[str, str]] = {
    "no cache": {},
    "cache": {"LANTERN_CACHE__SIZE": "4096"},
}
_THREADS = {"LANTERN_SERVER__WORKER_CLASS": GTHREAD, "LANTERN_SERVER__THREADS": "16"}
BATCHING_VARIANTS: dict[str, dict[str, str]] = {
    "one by one": _THREADS | {"LANTERN_MODEL__BATCH_ROWS": "0"},
    "batched": _THREADS | {"LANTERN_MODEL__BATCH_ROWS": "64"},
    "in the pool": {},
}


def beside(peers: Iterable[str] = PEER_NAMES) -> list[Program]:
    """Return Lantern with its default settings, and peers beside it."""
    return [lantern(), *map(peer, peers)]


def predict(bench: Bench) -> None:
    """Measure `POST /predict` on 16 kept connections."""
    with all_running(beside(), bench.directory) as servers:
        for server in interleaved(servers, bench.rounds):
            bench.slot("predict", server, _posting(bench.varied))


def batch(bench: Bench) -> None:
    """Measure large batches on two connections, every answer awaited."""
    with all_running(beside(), bench.directory) as servers:
        for size in BATCH_SIZES:
            bodies = [payloads.batch(payloads.samples(size, seed)) for seed in range(4)]

            def load(server: Server, seconds: float, bodies: list[bytes] = bodies) -> Load:
                return batches(server, "/predict/batch", seconds, bodies)

            for server in interleaved(servers, bench.rounds):
                bench.slot(batch_part(size), server, load)


def batch_part(size: int) -> str:
    """Name what is noted of batches of ``size`` rows."""
    return f"batch of {size:,}"


def routes(bench: Bench) -> None:
    """Measure what Flask dispatches, on the keep-alive worker, on gthread, and beside FastAPI."""
    through_flask = {"LANTERN_SERVER__FAST_PATH": "false"}
    gthread = through_flask | {"LANTERN_SERVER__WORKER_CLASS": GTHREAD}
    programs = [lantern(settings=through_flask), lantern(GTHREAD, gthread), peer(FASTAPI)]
    with all_running(programs, bench.directory) as servers:
        for path in ROUTES:

            def load(server: Server, seconds: float, path: str = path) -> Load:
                return wrk(server, path, seconds)

            having = [server for server in servers if exchange(server, path)[0] == 200]
            if {LANTERN, GTHREAD} - {server.name for server in having}:
                raise BenchmarkError(f"Lantern does not answer {path} with 200.")
            for server in interleaved(having, bench.rounds):
                bench.slot(path, server, load)
        for server in interleaved(servers, bench.rounds):
            bench.slot(THROUGH_FLASK, server, _posting(bench.varied))


def footprint(bench: Bench) -> None:
    """Measure the time from the start to the first 200, and the memory after a second of load."""
    load = _posting(bench.varied)
    for program in interleaved(beside(), bench.rounds):
        with running(program, bench.directory) as server:
            server.wait_until_idle()
            for fault in load(server, 1).faults:
                bench.fault("footprint", f"{server.name}: {fault}")
            bench.record(
                "footprint",
                server.name,
                start_s=server.seconds_to_ready,
                memory_mib=proportional_mib(server.process.pid),
            )


def further_worker(bench: Bench) -> None:
    """Measure what a third worker adds in memory when the weights are a checkpoint of 505 MiB.

    The proportional memory of three workers less that of two, after each of them has predicted.
    """
    path = bench.directory / "large.pt"
    checkpoints.write(path, LARGE_WIDTH)
    for _ in range(bench.rounds):
        memory = {}
        for workers in (2, 3):
            program = lantern(settings=checkpoints.settings(path), workers=workers)
            with running(program, bench.directory) as server:
                _have_each_worker_predict(server, workers)
                server.wait_until_idle()
                memory[workers] = proportional_mib(server.process.pid)
        bench.record(
            "further worker", LANTERN, two_workers_mib=memory[2], further_mib=memory[3] - memory[2]
        )
    path.unlink()


def slow_clients(bench: Bench) -> None:
    """Measure `POST /predict` with connections beside it that don't get on, and without."""
    load = _posting(bench.varied)
    with all_running([lantern()], bench.directory) as (server,):
        for who in interleaved([ALONE, BESIDE_SLOW], bench.rounds):
            if who == ALONE:
                bench.slot("slow clients", server, load, who)
                continue
            with SlowConnections(server, SLOW_CLIENTS) as slow:
                bench.slot("slow clients", server, load, who)
            bench.record("slow clients", who, fewest_open=slow.fewest, reopened=slow.reopened)
            if slow.fewest < SLOW_CLIENTS * _LEAST_OPEN:
                bench.fault("slow clients", f"only {slow.fewest} of {SLOW_CLIENTS} stayed open")


def cache(bench: Bench) -> None:
    """Measure `POST /predict` with and without a cache of answers, on varied rows and on one."""
    programs = [lantern(name, settings) for name, settings in CACHE_VARIANTS.items()]
    with all_running(programs, bench.directory) as servers:
        for part, bodies in ((VARIED, bench.varied), (REPEATED, bench.repeated)):
            for server in interleaved(servers, bench.rounds):
                bench.slot(part, server, _posting(bodies))


def batching(bench: Bench) -> None:
    """Measure a network that takes long: on gthread, one by one and together, and by default."""
    path = bench.directory / "slow.pt"
    checkpoints.write(path, SLOW_WIDTH)
    bench.record("batching", "the network", forward_ms=checkpoints.forward_ms(SLOW_WIDTH))
    common = checkpoints.settings(path)
    programs = [lantern(name, common | more) for name, more in BATCHING_VARIANTS.items()]
    with all_running(programs, bench.directory) as servers:
        for server in interleaved(servers, bench.rounds):
            bench.slot("batching", server, _posting(bench.complete))
    path.unlink()


PARTS: dict[str, Callable[[Bench], None]] = {
    "predict": predict,
    "batch": batch,
    "routes": routes,
    "footprint": footprint,
    "further-worker": further_worker,
    "slow-clients": slow_clients,
    "cache": cache,
    "batching": batching,
    "connections": connections,
    "pipelining": pipelining,
    "proxied": proxied,
    "overload": overload,
    "candidates": candidates,
    "inference": inference,
    "migration": migration,
    "features": features,
    "instructions": instructions,
    "feature-instructions": feature_instructions,
    "check": check,
}
"""The parts by the names that ``--only`` and ``--skip`` take."""

PEERS_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("predict", "batch", "footprint"), PEER_NAMES),
    **dict.fromkeys(("connections", "pipelining", "proxied"), CHEAP_PEERS),
    "routes": (FASTAPI,),
    **dict.fromkeys(("instructions", "check"), (REFERENCE,)),
}
"""The peers that parts compare Lantern with, whose answers must then be alike."""


def peers_of(parts: Iterable[str]) -> list[str]:
    """Return the names of the peers that any of these parts needs."""
    needed = {name for part in parts for name in PEERS_OF.get(part, ())}
    return [name for name in PEER_NAMES if name in needed]


def _posting(bodies: Path) -> LoadOn:
    """Return the load of 16 kept connections that post ``bodies`` to `/predict`."""

    def load(server: Server, seconds: float) -> Load:
        return wrk(server, "/predict", seconds, bodies=bodies)

    return load


def _have_each_worker_predict(server: Server, workers: int) -> None:
    """Ask until every worker has answered: its log names the pid of who predicted."""
    body = payloads.single(payloads.golden_samples()[0])
    deadline = time.monotonic() + _ASK_SECONDS
    while time.monotonic() < deadline:
        status, _ = exchange(server, "/predict", body)
        if status != 200:
            raise BenchmarkError(f"{server.name} answers /predict with {status}.")
        lines = (
            line
            for line in server.log.read_text(encoding="utf-8").splitlines()
            if line.startswith("{")
        )
        said = (json.loads(line) for line in lines)
        if len({line["pid"] for line in said if line["message"] == "prediction"}) == workers:
            return
    raise BenchmarkError(f"Not all {workers} workers of {server.name} came to predict.")
