"""The parts of a fuzz run, one after the other at one server, and what came of them."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from benchmarks.load import exchange
from benchmarks.processes import children
from benchmarks.servers import Program, Server, lantern, running
from trials.fuzz import generated, inputs
from trials.fuzz.conversations import Conversation, Findings, hold
from trials.log import strange_lines

PARTS = ("raw bytes", "bodies", "hypothesis", "schemathesis")
_SHARES = {"raw bytes": 0.5, "bodies": 0.42, "hypothesis": 0.07, "schemathesis": 0.01}
WORKERS = 2
_MAX_KEPT = 50
"""How many inputs that went wrong are kept."""
_OPERATIONS = 12
"""How many operations the API has, roughly: among them schemathesis shares out its examples."""
_COUNT = re.compile(r'lantern_http_requests_total\{.*status="(\d+)"\} (\S+)')


@dataclass(frozen=True)
class Options:
    """How many requests are sent at least, made from which seed; ``only`` one part, or all."""

    requests: int = 200_000
    seed: int = 0
    only: str | None = None

    def count(self, part: str) -> int:
        """Return how many requests a part has to send."""
        if self.only:
            return self.requests if part == self.only else 0
        return round(self.requests * _SHARES[part])


@dataclass
class Outcome:
    """What came of each part: how many were sent, how long it took, the answers by status."""

    sent: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    wrong: list[tuple[Conversation, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return sum(self.sent.values())


def service() -> Program:
    """Describe the server that is fuzzed: Lantern with its defaults, two workers."""
    return lantern("fuzzed", {"LANTERN_SERVER__WORKER_CLASS": "keepalive"}, WORKERS)


def run(options: Options, directory: Path, program: Program | None = None) -> Outcome:
    """Run the parts, and look after them whether the server is as it was before."""
    with running(program or service(), directory) as server:
        server.wait_until_idle()
        fuzz = _Fuzz(options, server, directory)
        for part in PARTS:
            if options.count(part):
                fuzz.run(part)
        fuzz.look_back()
    return fuzz.outcome


class _Fuzz:
    """A fuzz run under way."""

    def __init__(self, options: Options, server: Server, directory: Path) -> None:
        self.outcome = Outcome()
        self._options = options
        self._server = server
        self._directory = directory
        self._workers = children(server.process.pid)

    def run(self, part: str) -> None:
        """Run one part, and note what came of it."""
        outcome, server, seed = self.outcome, self._server, self._options.seed
        count, findings, began = self._options.count(part), Findings(), time.monotonic()
        print(f"{part}: {count:,}", flush=True)
        if part == "raw bytes":
            self._hold(inputs.raw(seed, count), findings)
            outcome.sent[part] = findings.conversations
        elif part == "bodies":
            self._hold(inputs.bodies(seed, count), findings)
            outcome.sent[part] = findings.answers
        elif part == "hypothesis":
            generated.by_hypothesis(server.port, seed, count, findings)
            outcome.sent[part] = findings.conversations
        else:
            before = self._counts()
            found = generated.by_schemathesis(
                server.url, seed, max(1, count // _OPERATIONS), self._directory
            )
            if found:
                outcome.faults.append(found)
            findings.statuses = self._counts() - before
            outcome.sent[part] = findings.answers
        outcome.seconds[part] = time.monotonic() - began
        outcome.statuses[part] = findings.statuses
        if findings.faults:
            kinds = Counter(what for _, what in findings.faults)
            outcome.faults += [f"{part}: {n:,} times {what}" for what, n in kinds.most_common(20)]
            outcome.wrong += findings.faults[:_MAX_KEPT]

    def _hold(self, conversations: Iterator[Conversation], findings: Findings) -> None:
        hold(self._server.port, conversations, findings, self._look)

    def _look(self, said: list[Conversation]) -> None:
        """See whether the workers live; keep what was said when one died."""
        workers = children(self._server.process.pid)
        if workers != self._workers:
            self._workers = workers
            self.outcome.faults.append("a worker died; what was said then is kept")
            self.outcome.wrong += [(one, "said when a worker died") for one in said]

    def _counts(self) -> Counter[int]:
        """Return how many requests the service counts, by status."""
        _, text = exchange(self._server, "/metrics")
        counts: Counter[int] = Counter()
        for status, value in _COUNT.findall(text.decode()):
            counts[int(status)] += int(float(value))
        return counts

    def look_back(self) -> None:
        """See that the workers are those of the start, that they serve, and what was logged."""
        outcome, server = self.outcome, self._server
        self._look([])
        if exchange(server, "/health/ready")[0] != 200:
            outcome.faults.append("the service is not ready any more")
        failed = {status: n for status, n in self._counts().items() if status == 500}
        if failed:
            outcome.faults.append(f"the service counts {failed[500]:,} answers of 500")
        with server.log.open(encoding="utf-8", errors="replace") as lines:
            outcome.faults += islice(strange_lines(lines), 50)
