"""A rolling restart behind HAProxy: ``python -m trials.rolling_restart``.

Three instances of Lantern under load are restarted one after the other, as an upgrade would:
SIGTERM, the end, a new start, ready. Every request is accounted for, and one that failed fails the
trial.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from app.documents.text import print_anything
from benchmarks import payloads
from benchmarks.servers import BenchmarkError, Program, Server, free_port, lantern, running
from trials.expected import ExpectedAnswers
from trials.haproxy import HAProxy, Seen, haproxy
from trials.load import Load, Plan, Tally

INSTANCES = 3
GRACEFUL_SECONDS = 30
"""``[server] graceful_timeout_seconds``, as it is by default."""
_SLACK_SECONDS = 5.0
"""What an exit may take beyond that, in which the time to drain is."""
_SETTLE_SECONDS = 2.0
"""Under load before the first restart, and after the last one."""
_CHECK_SECONDS = 20.0
_BODIES = 200


@dataclass(frozen=True)
class Options:
    """``rate`` requests a second on ``connections``; all instances restarted ``rounds`` times."""

    rounds: int = 1
    rate: float = 500.0
    connections: int = 64
    drain_seconds: float = 5.0
    seed: int = 0


@dataclass(frozen=True)
class Restart:
    """One restart of one instance, in seconds from its SIGTERM."""

    instance: int
    noticed: float | None
    """When HAProxy had taken it out; None where it ended before."""
    ended: float
    ready: float
    status: int


@dataclass
class Outcome:
    """What came of it."""

    tally: Tally
    seen: Seen
    restarts: list[Restart]
    shares: list[int] = field(default_factory=list)
    """How many requests HAProxy sent to each instance."""
    log: list[str] = field(default_factory=list)
    """What the instances logged as an error."""

    @property
    def faults(self) -> list[str]:
        """Say what was not as promised; empty where all was."""
        tally = self.tally
        kinds = Counter(f"{one.what}: {one.detail}" for one in tally.failures)
        faults = [f"{count:,} requests failed: {what}" for what, count in kinds.most_common(10)]
        if tally.more_failures:
            faults.append(f"{tally.more_failures:,} more requests failed")
        if tally.refused:
            faults.append(f"{tally.refused:,} requests were refused because of overload")
        unsent = tally.due - tally.sent
        if unsent:
            faults.append(f"{unsent:,} requests that were due found no connection to be sent on")
        if tally.right + tally.refused + tally.failed != tally.sent:
            faults.append(
                f"of {tally.sent:,} requests {tally.right:,} were answered right and "
                f"{tally.failed:,} failed: the rest is not accounted for"
            )
        faults += [
            f"instance {one.instance} ended with status {one.status}"
            for one in self.restarts
            if one.status
        ]
        return faults + [f"logged: {line}" for line in self.log[:10]]


def run(options: Options, directory: Path) -> Outcome:
    """Restart every instance under load, and tell what its callers saw."""
    settings = {
        "LANTERN_SERVER__GRACEFUL_TIMEOUT_SECONDS": str(GRACEFUL_SECONDS),
        # Nobody is refused because this machine is slow.
        "LANTERN_LIMITS__QUEUE_BUDGET_MS": "60000",
    }
    if options.drain_seconds:
        settings["LANTERN_SERVER__DRAIN_SECONDS"] = f"{options.drain_seconds:g}"
    program = lantern("instance", settings, workers=1)
    expected = ExpectedAnswers(payloads.BUNDLE.parent)
    items = [expected.single(sample) for sample in payloads.samples(_BODIES, options.seed)]
    with ExitStack() as stack:
        instances = [
            stack.enter_context(Instance(number, program, directory))
            for number in range(1, INSTANCES + 1)
        ]
        proxy = stack.enter_context(haproxy([one.port for one in instances], directory))
        restarts = []
        plan = Plan(proxy.port, items, options.connections, options.rate, options.seed)
        with Load(plan) as load:
            time.sleep(_SETTLE_SECONDS)
            for _ in range(options.rounds):
                restarts += [one.restart(proxy) for one in instances]
            time.sleep(_SETTLE_SECONDS)
        seen = proxy.seen()
        shares = [proxy.seen(one.name).requests for one in instances]
        log = [line for one in instances for line in one.errors()]
    return Outcome(load.tally, seen, restarts, shares, log)


class Instance:
    """One of the instances, which keeps its port over its restarts."""

    def __init__(self, number: int, program: Program, directory: Path) -> None:
        self.number = number
        self.name = f"lantern-{number}"
        """What the configuration of HAProxy calls it."""
        self.port = free_port()
        self._program = program
        self._directory = directory
        self._stack = ExitStack()
        self._server: Server
        self._errors: list[str] = []

    def __enter__(self) -> Instance:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        self._server = self._stack.enter_context(running(self._program, self._directory, self.port))

    def errors(self) -> list[str]:
        """Return the lines of an error that it has logged in all its lives."""
        lines = self._server.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return self._errors + [line for line in lines if '"ERROR"' in line or "Traceback" in line]

    def restart(self, proxy: HAProxy) -> Restart:
        """Stop it, start it again, and wait until HAProxy sends it requests."""
        process = self._server.process
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        noticed = None
        until = began + GRACEFUL_SECONDS + _SLACK_SECONDS
        while process.poll() is None:
            if time.monotonic() > until:
                raise BenchmarkError(f"Instance {self.number} did not end after SIGTERM.")
            if noticed is None and proxy.seen(self.name).status == "DOWN":
                noticed = time.monotonic() - began
            time.sleep(0.02)
        ended = time.monotonic() - began
        self._errors = self.errors()
        self._stack.close()
        self._start()
        proxy.wait_for(self.name, "UP", _CHECK_SECONDS)
        return Restart(self.number, noticed, ended, time.monotonic() - began, process.returncode)


def table(outcome: Outcome) -> str:
    """Write what came of it, for people."""
    tally, seen = outcome.tally, outcome.seen
    slowest = max((second.slowest_ms for second in tally.seconds.values()), default=0.0)
    lines = ["| instance | out of HAProxy after | ended after | back after | exit status |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for one in outcome.restarts:
        noticed = "-" if one.noticed is None else f"{one.noticed:.1f} s"
        lines.append(
            f"| {one.instance} | {noticed} | {one.ended:.1f} s | {one.ready:.1f} s | {one.status} |"
        )
    rows = {
        "requests due": tally.due,
        "sent": tally.sent,
        "answered right": tally.right,
        "failed": tally.failed,
        "slowest answer, ms": round(slowest),
        "HAProxy: requests": seen.requests,
        **{
            f"HAProxy: of these to instance {number}": share
            for number, share in enumerate(outcome.shares, 1)
        },
        "HAProxy: connections refused": seen.connection_errors,
        "HAProxy: connections tried again": seen.retries,
        "HAProxy: connections tried again at another instance": seen.redispatches,
        "HAProxy: answers that broke off": seen.response_errors + seen.aborted_by_server,
        "HAProxy: answers of 5xx": seen.answers_5xx,
    }
    lines += ["", "| what | count |", "| --- | --- |"]
    lines += [f"| {what} | {count:,} |" for what, count in rows.items()]
    return "\n".join(lines)


def main() -> int:
    """Run the trial, print what came of it, and give the exit status."""
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m trials.rolling_restart", description=__doc__)
    parser.add_argument("--rounds", type=int, default=defaults.rounds)
    parser.add_argument("--rate", type=float, default=defaults.rate, help="requests a second")
    parser.add_argument("--connections", type=int, default=defaults.connections)
    parser.add_argument(
        "--drain-seconds",
        type=float,
        default=defaults.drain_seconds,
        help="[server] drain_seconds of the instances",
    )
    parser.add_argument("--seed", type=int, default=defaults.seed)
    options = Options(**vars(parser.parse_args()))
    print_anything()
    missing = [name for name in ("haproxy", "setpriv") if shutil.which(name) is None]
    if missing:
        parser.error(f"{' and '.join(missing)} are needed (Debian's haproxy and util-linux).")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, and so stops the servers
    with tempfile.TemporaryDirectory(prefix="lantern-restart-") as directory:
        outcome = run(options, Path(directory))
    print(table(outcome))
    for fault in outcome.faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchmarkError, subprocess.SubprocessError) as error:
        sys.exit(f"The trial could not be run. {error}")
    except KeyboardInterrupt:
        sys.exit(130)
