"""The measurement: TorchServe, LitServe, BentoML and Lantern, beside each other and each alone."""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.bench import Bench, LoadOn
from benchmarks.figures import interleaved
from benchmarks.load import Load, batches, wrk
from benchmarks.migration.cases import CASES, Case
from benchmarks.migration.lantern import lanterns
from benchmarks.migration.peers import TORCHSERVE, make_environments, path_of, peers
from benchmarks.processes import proportional_mib
from benchmarks.servers import BenchmarkError, Server, all_running, running

CONNECTIONS = (1, 16)
_ABSOLUTE = 1e-4
_WARM_SECONDS = 1.0
_RESTING = 0.1
"""What an idle server may use of a processor: the JVM and the queues of the others never rest."""


def migration(bench: Bench) -> None:
    """Measure what TorchServe's users have, in TorchServe, LitServe, BentoML and Lantern."""
    make_environments()
    for make in CASES.values():
        case = make(bench.directory)
        programs = [*peers(case, bench.directory), *lanterns(case, bench.directory)]
        with all_running(programs, bench.directory, _RESTING) as servers:
            check(case, servers)
            for connections in CONNECTIONS:
                load = posting(case, connections)
                for server in interleaved(servers, bench.rounds):
                    bench.slot(part_of(case.name, connections), server, load)
        for program in interleaved(programs, bench.rounds):
            with running(program, bench.directory) as server:
                server.wait_until_idle(_RESTING)
                for fault in posting(case, max(CONNECTIONS))(server, _WARM_SECONDS).faults:
                    bench.fault(footprint_of(case.name), f"{server.name}: {fault}")
                bench.record(
                    footprint_of(case.name),
                    server.name,
                    start_s=server.seconds_to_ready,
                    memory_mib=proportional_mib(server.process.pid),
                )


def part_of(case: str, connections: int) -> str:
    """Name what is noted of a case under load."""
    return f"{case}, {connections} connection{'s' if connections > 1 else ''}"


def footprint_of(case: str) -> str:
    """Name what is noted of the start and the memory of a case."""
    return f"{case}, alone"


def migration_parts() -> list[str]:
    """Return the names of all that is noted, in order."""
    names = []
    for case in CASES:
        names += [part_of(case, connections) for connections in CONNECTIONS]
        names.append(footprint_of(case))
    return names


def check(case: Case, servers: Sequence[Server]) -> None:
    """Raise `BenchmarkError` unless all answer every body as TorchServe does."""
    for body in case.bodies:
        answers = {server.name: answer(server, case, body) for server in servers}
        expected = answers[TORCHSERVE]
        for name, found in answers.items():
            if not alike(found, expected):
                raise BenchmarkError(
                    f"{name} answers {body.name} with {found}, and {TORCHSERVE} with {expected}."
                )


def alike(found: Mapping[str, float], expected: Mapping[str, float]) -> bool:
    """Return True if two answers are the same but for what decoders and sums round differently."""
    return len(found) == len(expected) and all(
        label in found and math.isclose(found[label], value, abs_tol=_ABSOLUTE)
        for label, value in expected.items()
    )


def answer(server: Server, case: Case, body: Path) -> dict[str, float]:
    """Return what a server answers: labels and their probabilities."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        headers = {"Content-Type": case.content_type}
        connection.request("POST", path_of(server.name, case), body.read_bytes(), headers)
        response = connection.getresponse()
        content = response.read()
    if response.status != 200:
        raise BenchmarkError(f"{server.name} answers {body.name} with {content[:300]!r}")
    found: dict[str, float] = json.loads(content)
    return found


def posting(case: Case, connections: int) -> LoadOn:
    """Return the load of so many kept connections that post the bodies of ``case`` in turn."""
    headers = {"Content-Type": case.content_type}

    def load(server: Server, seconds: float) -> Load:
        path = path_of(server.name, case)
        if case.takes_long:
            bodies = [body.read_bytes() for body in case.bodies]
            return batches(server, path, seconds, bodies, headers=headers, connections=connections)
        return wrk(
            server, path, seconds, whole=case.bodies, headers=headers, connections=connections
        )

    return load
