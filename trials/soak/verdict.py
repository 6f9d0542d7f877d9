"""What a soak proves: each question about what was seen, and what speaks against a yes.

Every function gives sentences, one for each thing that was not as promised.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trials.load import BUCKETS_PER_SECOND, Failure, Tally
from trials.soak.chaos import Ended, Event, Released
from trials.soak.hostile_clients import Unexpected
from trials.soak.watch import Holdings, Sample

FOLLOW_SECONDS = 8.0
"""How long after a release was changed the former may still answer, on a machine with nothing else
to do: workers look every two seconds, load the version and test it, all under load."""
_KILL_SECONDS = 4.0
"""How long after a kill its connections may still be found broken: the client is busy, too."""
_STOP_SECONDS = 30.0
"""How long a worker that was told to stop may refuse what isn't here whole."""
_CLOCK_SECONDS = 0.05


@dataclass(frozen=True)
class Growth:
    """How a memory developed: its size at first, and what was added, in MiB."""

    what: str
    mib: float
    added: float

    @property
    def percent(self) -> float:
        return 100 * self.added / self.mib


def growth(what: str, times: Sequence[float], mib: Sequence[float]) -> Growth:
    """Fit a line that outliers don't bend: its slope is the median of those of all pairs.

    Theil and Sen; see Sen, "Estimates of the regression coefficient based on Kendall's tau",
    Journal of the American Statistical Association 63 (1968).
    """
    t, y = np.asarray(times), np.asarray(mib)
    first, second = np.triu_indices(len(t), 1)
    slope = float(np.median((y[second] - y[first]) / (t[second] - t[first])))
    span = float(t[-1] - t[0])
    at_first = float(np.median(y - slope * (t - t[0])))
    return Growth(what, at_first, slope * span)


def growths(samples: Sequence[Sample]) -> list[Growth]:
    """Return how the master grew, and each worker that was there all along: in resident memory.

    Not how all of them together did: that goes up and down with the age of the youngest worker and
    the number of versions it has loaded, by more than there is to be found.
    """
    times = [sample.at for sample in samples]
    found = [growth("the master", times, [sample.master.resident for sample in samples])]
    for pid in sorted(set.intersection(*(set(sample.workers) for sample in samples))):
        resident = [sample.workers[pid].resident for sample in samples]
        found.append(growth(f"worker {pid}", times, resident))
    return found


def too_much_growth(found: Iterable[Growth], most_percent: float) -> Iterator[str]:
    """Tell what grew by more than ``most_percent``."""
    for one in found:
        if one.percent > most_percent:
            yield (
                f"the memory of {one.what} grew by {one.percent:.1f} % "
                f"({one.added:.2f} MiB on {one.mib:.1f} MiB)"
            )


def leaked(before: Holdings, after: Holdings) -> Iterator[str]:
    """Tell what is held idle after the load that wasn't before.

    A worker that was there before is compared with itself; one that came later has not met
    everything, and may hold less than the others did, but not more.
    """
    if len(before.workers) != len(after.workers):
        yield f"there are {len(after.workers)} workers, {len(before.workers)} before"
    pairs = [("the master", before.master, after.master)]
    for pid, held in after.workers.items():
        pairs.append((f"worker {pid}", before.workers.get(pid, before.most), held))
    for whose, then, now in pairs:
        for kind, count in sorted((now - then).items()):
            yield f"{whose} has {count} more of this open than before: {kind}"


def unexplained_failures(tally: Tally, events: Sequence[Event]) -> Iterator[str]:
    """Tell of failed requests that no kill explains.

    A kill explains those whose connection broke with it: at its time, on a connection whose worker
    has answered nothing that was sent later.
    """
    left = Counter(
        f"{one.what}: {one.detail}"
        for one in tally.failures
        if not any(_breaks(kill, one, tally) for kill in kills(events))
    )
    for what, count in left.most_common():
        yield f"{count:,} requests failed, and no kill explains it: {what}"
    if tally.more_failures:
        yield f"{tally.more_failures:,} more requests failed than are kept to be explained"
    if tally.due > tally.sent:
        yield f"{tally.due - tally.sent:,} requests that were due were never sent"
    missing = tally.sent - tally.right - tally.refused - tally.failed
    if missing:
        yield f"{missing:,} requests were neither answered nor failed"


def _breaks(kill: Ended, failure: Failure, tally: Tally) -> bool:
    in_time = kill.began - _CLOCK_SECONDS <= failure.failed <= kill.ended + _KILL_SECONDS
    gone = tally.last_seen.get(failure.worker, 0.0) <= kill.ended + _CLOCK_SECONDS
    return failure.what == "reset" and in_time and gone


def kills(events: Iterable[Event]) -> list[Ended]:
    """Return the workers that were killed."""
    return [one for one in events if isinstance(one, Ended) and one.signal is signal.SIGKILL]


def unexplained_outcomes(
    unexpected: Iterable[Unexpected], events: Sequence[Event]
) -> Iterator[str]:
    """Tell of wrong clients that were answered otherwise than they should, without a reason.

    One that was there when a worker was killed may get no answer; one that was when a worker was
    told to stop may be told to come again.
    """
    deaths = kills(events)
    stops = [one for one in events if one.what in ("SIGTERM", "SIGHUP")]
    left: Counter[str] = Counter()
    for one in unexpected:
        killed = one.status == 0 and _overlaps(one, deaths, _CLOCK_SECONDS)
        stopped = one.status == 503 and _overlaps(one, stops, _STOP_SECONDS)
        if not (killed or stopped):
            left[f"{one.name}: {one.detail}"] += 1
    for what, count in left.most_common():
        yield f"{count:,} times {what}"


def _overlaps(outcome: Unexpected, events: Iterable[Event], after: float) -> bool:
    return any(
        outcome.began <= event.ended + after and outcome.ended >= event.began - _CLOCK_SECONDS
        for event in events
    )


def strange_versions(
    tally: Tally, events: Sequence[Event], first: str, follow_seconds: float = FOLLOW_SECONDS
) -> Iterator[str]:
    """Tell of answers by versions that could not serve when they were given.

    ``first`` served alone before the first change, and ``follow_seconds`` after each the former may
    still answer. A shadow never answers.
    """
    changes = [one for one in events if isinstance(one, Released)]
    answering = [{first}, *(_answering(one) for one in changes)]
    strange: Counter[str] = Counter()
    for (bucket, version), count in tally.versions.items():
        begins, ends = bucket / BUCKETS_PER_SECOND, (bucket + 1) / BUCKETS_PER_SECOND
        allowed: set[str] = set()
        for number, versions in enumerate(answering):
            since = changes[number - 1].began if number else -np.inf
            until = changes[number].ended if number < len(changes) else np.inf
            if since <= ends and begins <= until + follow_seconds:
                allowed |= versions
        if version not in allowed:
            strange[version] += count
    for version, count in strange.items():
        yield f"{count:,} answers are of version {version} when it could not serve"
    seen = {version for _, version in tally.versions}
    for change, following in pairwise(changes):
        if tally.began < change.began and following.began - change.ended > follow_seconds:
            for version in _answering(change) - seen:
                yield f"version {version} was released and never answered"


def _answering(change: Released) -> set[str]:
    release = change.release
    canary = release.candidate if release.mode == "canary" else None
    return {release.stable} | ({canary} if canary else set())


def refused_too_much(tally: Tally, most_percent: float) -> Iterator[str]:
    """Tell when more than ``most_percent`` of the requests were refused because of overload."""
    percent = 100 * tally.refused / max(tally.sent, 1)
    if percent > most_percent:
        yield f"{tally.refused:,} requests ({percent:.1f} %) were refused because of overload"


def miscounted(what: str, counted: float, answered: int, lost: int) -> Iterator[str]:
    """Tell when the metrics count other than the clients did.

    A request whose worker was killed may be counted although its answer was lost, so up to
    ``lost`` more may be.
    """
    if not answered <= counted <= answered + lost:
        yield (
            f"the metrics count {counted:,.0f} {what}, the clients were answered "
            f"{answered:,} and lost {lost:,}"
        )


def server_faults(statuses: dict[int, float]) -> Iterator[str]:
    """Tell of answers that are the service's fault, by its own count."""
    for status, count in sorted(statuses.items()):
        if status >= 500 and status != 503:
            yield f"the service answered {count:,.0f} requests with {status}"
