"""The phases of a soak, and what was seen in them."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from time import monotonic

from benchmarks import payloads
from benchmarks.load import exchange
from benchmarks.servers import BenchmarkError, Program, Server, lantern, running
from trials.expected import SINGLE, ExpectedAnswers, pack_versions
from trials.load import Item, Load, Plan, Tally
from trials.log import strange_lines
from trials.soak import verdict
from trials.soak.chaos import FIRST, ROW, Chaos, Event
from trials.soak.hostile_clients import (
    BODY_SECONDS,
    HEAD_SECONDS,
    Account,
    Case,
    HostileClients,
    cases,
)
from trials.soak.verdict import Growth
from trials.soak.watch import Holdings, Sample, Watch, holdings

WORKERS = 3
_CONNECTIONS = 32
_SINGLES, _BATCHES = 500, 5
_BATCH_ROWS = 100
_CALIBRATIONS = 3
_FEWEST_SAMPLES = 10
_STOP_SECONDS = 60
_POLL_SECONDS = 0.2
_ASKED = 8 * WORKERS
"""How often it is asked which version answers, so that every worker has surely been asked."""
_SHARES = {"warm-up": 0.3, "soak": 0.6, "reload": 0.1}
"""Of the time. Until every kind of request was there and every release was followed twice, a worker
still grows: glibc keeps up to 32 MiB of what was freed (`app.worker.malloc`)."""
_REFUSALS = re.compile(r'lantern_http_requests_rejected_total\{reason="overloaded"\} (\S+)')
_ANSWERS = re.compile(
    r'lantern_http_requests_total\{method="\w+",route="([^"]+)",status="(\d+)"\} (\S+)'
)


@dataclass(frozen=True)
class Options:
    """How a soak is run; ``share`` is that of the rate at which the machine is saturated."""

    minutes: float = 10.0
    share: float = 0.8
    hostile_requests: float = 20.0
    """Wrong clients a second."""
    most_growth_percent: float = 2.0
    most_refused_percent: float = 1.0
    follow_seconds: float = verdict.FOLLOW_SECONDS
    """How long all workers may take to follow a change of the release."""
    seed: int = 0
    row: tuple[str, ...] = ROW

    @property
    def seconds(self) -> float:
        return self.minutes * 60

    @property
    def pace(self) -> float:
        """Seconds between two events: thirty in a soak, within reason."""
        return min(15.0, max(1.0, self.seconds * _SHARES["soak"] / 30))


@dataclass
class Outcome:
    """What was seen, and what was not as promised."""

    saturated: float = 0.0
    """Right answers a second with every connection busy all the time."""
    cpu_saturated: float = 0.0
    """Cores that the server used then."""
    cpu: float = 0.0
    """Cores that it used during the soak."""
    tallies: dict[str, Tally] = field(default_factory=dict)
    hostile: dict[str, Account] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    before: Holdings | None = None
    after: Holdings | None = None
    statuses: dict[int, float] = field(default_factory=dict)
    """Answers by status, as the service itself counts them."""
    faults: list[str] = field(default_factory=list)


def service(models: Path) -> Program:
    """Describe the server that is soaked: Lantern's defaults, with limits that a soak can reach."""
    return lantern(
        "soaked",
        {
            "LANTERN_MODEL__PATH": str(models),
            "LANTERN_LOGGING__LEVEL": "WARNING",  # a line a request would fill the disk
            "LANTERN_ACCESS__KEYS_FILE": str(models.with_name("keys.json")),
            "LANTERN_SERVER__HEADERS_TIMEOUT_SECONDS": str(HEAD_SECONDS),
            "LANTERN_SERVER__BODY_TIMEOUT_SECONDS": str(BODY_SECONDS),
        },
        WORKERS,
    )


def run(options: Options, directory: Path, make: Callable[[Path], Program] = service) -> Outcome:
    """Soak the server that ``make`` describes for the models it is given, and judge it."""
    models = pack_versions(directory)
    expected = ExpectedAnswers(models)
    items = [expected.single(one) for one in payloads.samples(_SINGLES, options.seed)]
    items += [
        expected.batch(payloads.samples(_BATCH_ROWS, options.seed + number + 1))
        for number in range(_BATCHES)
    ]
    wrong = cases(expected, options.seed)
    program = make(models)
    with running(program, directory) as server:
        chaos = Chaos(server, models, program.settings)
        soak = _Soak(options, server, chaos, items, wrong)
        soak.run()
        soak.stop()
        soak.judge(server.log.read_text(encoding="utf-8", errors="replace"))
    return soak.outcome


@dataclass(frozen=True)
class _Counts:
    """What the service counts: answers by route and status, refusals because of overload."""

    answers: Counter[tuple[str, int]]
    refusals: int


class _Soak:
    """A soak under way."""

    def __init__(
        self,
        options: Options,
        server: Server,
        chaos: Chaos,
        items: Sequence[Item],
        wrong: Sequence[Case],
    ) -> None:
        self.outcome = Outcome()
        self._options = options
        self._server = server
        self._items = items
        self._wrong = wrong
        self._chaos = chaos
        self.outcome.events = chaos.events
        self._counted: dict[str, _Counts] = {}

    def run(self) -> None:
        """Calibrate, warm up, soak, and reload; rest in between, to look at what is held."""
        outcome, server = self.outcome, self._server
        self._chaos.change("model", "promote", FIRST.stable, "--allow-schema-change")
        server.wait_until_idle()
        self._calibrate()
        self._phase("warm-up", self._cause_each_once)
        self._rest()
        outcome.before, self._counted["before"] = holdings(server.process.pid), self._counts()
        cpu, began = server.cpu_seconds(), monotonic()
        with Watch(server.process.pid, min(2.0, self._options.seconds / 100)) as watch:
            self._phase("soak", self._cause_chaos)
        outcome.cpu = (server.cpu_seconds() - cpu) / (monotonic() - began)
        outcome.samples = watch.samples
        self._rest()
        outcome.after, self._counted["after"] = holdings(server.process.pid), self._counts()
        self._phase("reload", self._reload)
        self._rest()
        self._counted["end"] = self._counts()

    def _calibrate(self) -> None:
        """Find the most that this client is answered beside the wrong ones: the best of some.

        Client and server share the machine, and it is the machine that is saturated then: every
        core is busy.
        """
        outcome, server = self.outcome, self._server
        seconds = min(5.0, self._options.seconds * 0.02)
        with self._hostile_clients() as hostile:
            for _ in range(_CALIBRATIONS):
                cpu = server.cpu_seconds()
                with self._load(None) as load:
                    time.sleep(seconds)
                cpu = server.cpu_seconds() - cpu
                if load.tally.rate > outcome.saturated:
                    outcome.saturated = load.tally.rate
                    outcome.cpu_saturated = cpu / (load.tally.ended - load.tally.began)
                outcome.faults += verdict.unexplained_failures(load.tally, ())
        outcome.faults += verdict.unexplained_outcomes(hostile.account.unexpected, ())

    def _hostile_clients(self) -> HostileClients:
        options = self._options
        return HostileClients(
            self._server.port, self._wrong, options.hostile_requests, options.seed
        )

    def _load(self, rate: float | None) -> Load:
        seed = self._options.seed
        return Load(Plan(self._server.port, self._items, _CONNECTIONS, rate, seed))

    def _phase(self, name: str, cause: Callable[[float], None]) -> None:
        """Run everything at once: the load, hostile clients, chaos."""
        seconds = self._options.seconds * _SHARES[name]
        rate = self.outcome.saturated * self._options.share
        print(f"{name}: {seconds:,.0f} s at {rate:,.0f} requests/s", flush=True)
        until = monotonic() + seconds
        with self._load(rate) as load, self._hostile_clients() as hostile:
            cause(seconds)
            time.sleep(max(0.0, until - monotonic()))
        self.outcome.tallies[name] = load.tally
        self.outcome.hostile[name] = hostile.account

    def _cause_each_once(self, seconds: float) -> None:
        """Do all of the row, however long it takes: no worker shall meet it for the first time."""
        for what in self._options.row:
            time.sleep(seconds / (len(self._options.row) + 1))
            self._chaos.do(what)

    def _cause_chaos(self, seconds: float) -> None:
        """Do the row again and again, at an even pace."""
        until, pace = monotonic() + seconds, self._options.pace
        for what in cycle(self._options.row):
            if monotonic() + pace > until:
                return
            time.sleep(pace)
            self._chaos.do(what)

    def _reload(self, seconds: float) -> None:
        time.sleep(seconds / 2)
        self._chaos.reload()

    def _rest(self) -> None:
        """Let version 1 serve alone, every worker have followed, and nobody ask anything."""
        self._chaos.go_home()
        until = monotonic() + self._options.follow_seconds
        while {self._version() for _ in range(_ASKED)} != {FIRST.stable}:
            if monotonic() > until:
                raise BenchmarkError(f"Not all workers follow to version {FIRST.stable}.")
            time.sleep(_POLL_SECONDS)
        self._server.wait_until_idle()

    def _version(self) -> str:
        """Ask whichever worker accepts it which version it serves."""
        version: str = json.loads(exchange(self._server, "/model/info")[1])["model_version"]
        return version

    def _counts(self) -> _Counts:
        text = exchange(self._server, "/metrics")[1].decode()
        answers: Counter[tuple[str, int]] = Counter()
        for route, status, count in _ANSWERS.findall(text):  # once for each method
            answers[route, int(status)] += int(float(count))
        return _Counts(answers, sum(int(float(count)) for count in _REFUSALS.findall(text)))

    def stop(self) -> None:
        """Stop the server as an operator would."""
        process = self._server.process
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        if process.returncode != 0:
            self.outcome.faults.append(f"SIGTERM ended it with status {process.returncode}")

    def judge(self, log: str) -> None:
        """Hold what was seen to what is promised."""
        outcome, options = self.outcome, self._options
        faults, events = outcome.faults, outcome.events
        for name, tally in outcome.tallies.items():
            said = [
                *verdict.unexplained_failures(tally, events),
                *verdict.strange_versions(tally, events, FIRST.stable, options.follow_seconds),
                *verdict.unexplained_outcomes(outcome.hostile[name].unexpected, events),
            ]
            faults += [f"{name}: {words}" for words in said]
        if len(outcome.samples) < _FEWEST_SAMPLES:
            raise BenchmarkError("The soak was too short to sample anything.")
        outcome.growths = verdict.growths(outcome.samples)
        faults += verdict.too_much_growth(outcome.growths, options.most_growth_percent)
        assert outcome.before is not None
        assert outcome.after is not None
        faults += verdict.leaked(outcome.before, outcome.after)
        faults += verdict.refused_too_much(outcome.tallies["soak"], options.most_refused_percent)
        faults += self._miscounted()
        for (_, status), count in self._counted["end"].answers.items():
            outcome.statuses[status] = outcome.statuses.get(status, 0) + count
        faults += verdict.server_faults(outcome.statuses)
        killed = [kill.pid for kill in verdict.kills(events)]
        faults += strange_lines(log.splitlines(), killed)

    def _miscounted(self) -> Iterator[str]:
        """Compare what the metrics and the clients counted in the soak."""
        tally, account = self.outcome.tallies["soak"], self.outcome.hostile["soak"]
        lost = tally.failed + len(account.unexpected)
        before, after = self._counted["before"], self._counted["after"]
        singles = after.answers[SINGLE, 200] - before.answers[SINGLE, 200]
        refusals = after.refusals - before.refusals
        answered = tally.right_by_path[SINGLE] + account.predictions
        yield from verdict.miscounted("single predictions", singles, answered, lost)
        yield from verdict.miscounted("refusals", refusals, tally.refused + account.refused, lost)
