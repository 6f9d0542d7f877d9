"""Instructions of a request: a figure that other work on the machine doesn't move.

valgrind counts those that a server executes outside the kernel, while one caller sends request
after request. A server runs some thirty times slower under it, which changes nothing of the count
but for what it does by the clock; Lantern is told to do little of that.
"""

from __future__ import annotations

import http.client
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from app.worker.cores import usable_cores
from benchmarks.bench import Bench
from benchmarks.check import Requests, programs, single_rows
from benchmarks.servers import BenchmarkError, Program, Server, running

PART = "instructions"
_COUNTED, _BEFORE = 300, 100
"""Requests of a round, and those before the first round: while Python specialises its code."""
_COMMAND_SECONDS = 60
_ONE_PROCESS = Path(__file__).with_name("one_process.py")
_QUIET = {"LANTERN_RELEASE__POLL_SECONDS": "3600", "PYTHONHASHSEED": "0"}
"""Do little by the clock, and have the same order of hashes in each run."""
_OUTPUT = "callgrind.%p"


def instructions(bench: Bench) -> None:
    """Count the instructions of a prediction, by valgrind."""
    count(bench, PART, [(program, single_rows(program.name)) for program in programs()])


def count(
    bench: Bench, part: str, counted: Sequence[tuple[Program, Mapping[str, Requests]]]
) -> None:
    """Count the instructions of requests to each program, by what they are noted as.

    As many programs run at once as there are cores: it disturbs none of them.
    """
    if shutil.which("valgrind") is None:
        bench.skip(part, "it needs valgrind (Debian's package of that name)")
        return
    with ThreadPoolExecutor(usable_cores()) as pool:
        counts = partial(_counts, bench.directory, bench.rounds)
        for found in pool.map(counts, counted):
            for who, values in found.items():
                for value in values:
                    bench.record(part, who, instructions=value)


def _counts(
    directory: Path, rounds: int, counted: tuple[Program, Mapping[str, Requests]]
) -> dict[str, list[float]]:
    """Return the instructions per request of each round."""
    program, sent = counted
    found: dict[str, list[float]] = {}
    with running(_under_valgrind(program, directory), directory) as server:
        for who, requests in sent.items():
            bodies = cycle(requests.bodies)
            _send(server, requests, islice(bodies, _BEFORE))
            _tell(server, "instrumentation", "on")
            _send(server, requests, islice(bodies, _BEFORE))
            found[who] = []
            for _ in range(rounds):
                _tell(server, "zero")
                _send(server, requests, islice(bodies, _COUNTED))
                found[who].append(_total(directory, server) / _COUNTED)
            _tell(server, "instrumentation", "off")
    return found


def _under_valgrind(program: Program, directory: Path) -> Program:
    """Describe a program of Gunicorn's with one worker, under valgrind, which doesn't count yet."""
    arguments = (
        *("--tool=callgrind", "--instr-atstart=no"),
        f"--callgrind-out-file={directory / _OUTPUT}",
        *(str(program.executable.with_name("python")), str(_ONE_PROCESS), *program.arguments),
        *("-w", "1", "--timeout", "3600"),
    )
    settings = {**program.settings, **_QUIET}
    executable = Path(shutil.which("valgrind") or "valgrind")
    return replace(program, executable=executable, arguments=arguments, settings=settings)


def _send(server: Server, requests: Requests, bodies: Iterable[bytes]) -> None:
    """Send bodies on one connection, each when the one before it is answered."""
    headers = {"Content-Type": "application/json", **requests.headers}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)) as kept:
        for body in bodies:
            kept.request("POST", requests.path, body, headers)
            response = kept.getresponse()
            content = response.read()
            if response.status != 200:
                said = f"{response.status}: {content[:300]!r}"
                raise BenchmarkError(f"{server.name} answers {requests.path} with {said}")


def _total(directory: Path, server: Server) -> int:
    """Return what was counted since it was last set to zero."""
    pattern = f"{_OUTPUT.replace('%p', str(server.process.pid))}*"
    before = set(directory.glob(pattern))
    _tell(server, "dump")
    (written,) = set(directory.glob(pattern)) - before
    return total(written.read_text(encoding="utf-8"))


def total(dump: str) -> int:
    """Return the sum that a file of callgrind's ends with."""
    for line in reversed(dump.splitlines()):
        name, _, value = line.partition(": ")
        if name == "totals":
            return int(value)
    raise BenchmarkError("valgrind's file has no sum.")


def _tell(server: Server, *command: str) -> None:
    """Send a command to valgrind, and wait until it is done."""
    told = ["vgdb", f"--pid={server.process.pid}", "--wait=10", *command]
    try:
        subprocess.run(told, check=True, capture_output=True, timeout=_COMMAND_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchmarkError(f"valgrind doesn't answer for {server.name}: {error}") from error
