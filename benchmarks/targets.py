"""What Lantern sets out to cost, row by row, and whether what was measured meets it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.candidates import AGAIN, AT_80, CANARY, SATURATED, SHADOW
from benchmarks.candidates import ALONE as NO_CANDIDATE
from benchmarks.check import COMPARED, INFO, REFERENCE
from benchmarks.check import PART as CHECKED
from benchmarks.connections import CONNECTED, CONNECTIONS, PIPELINED, PROXIED, connected
from benchmarks.connections import PEERS as CHEAP_PEERS
from benchmarks.features import AS_IT_IS, FEATURES
from benchmarks.features import COUNTED as ALONE_COUNTED
from benchmarks.features import PART as ALONE_ON_AND_OFF
from benchmarks.figures import Figures, Spread, ratios
from benchmarks.inference import (
    ABOVE_RUNTIME,
    BINARY_IMAGE,
    IMAGE,
    KSERVE,
    MLSERVER,
    ROW,
    ROWS,
)
from benchmarks.instructions import PART as COUNTED
from benchmarks.measures import (
    ALONE,
    BATCH_SIZES,
    BATCHING_VARIANTS,
    BESIDE_SLOW,
    CACHE_VARIANTS,
    GTHREAD,
    REPEATED,
    ROUTES,
    SLOW_CLIENTS,
    THROUGH_FLASK,
    VARIED,
    batch_part,
)
from benchmarks.migration.targets import migration_rows
from benchmarks.overload import BOUNDED, BUDGET_MS, LOADS, PART, PEAK, at
from benchmarks.servers import LANTERN, PEER_NAMES

Unit = Literal["x", "s", "ms", "us", "MiB"]


@dataclass(frozen=True)
class Bound:
    """A limit: ``Bound(">=", 2.5)``."""

    sign: Literal[">=", ">", "<=", "<"]
    value: float

    def holds(self, measured: float) -> bool:
        above = measured > self.value
        return {
            ">": above,
            "<=": not above,
            ">=": above or measured == self.value,
            "<": measured < self.value,
        }[self.sign]


@dataclass(frozen=True)
class Target:
    """One row: a figure of one series, divided, where ``to`` is named, by that of another."""

    what: str
    part: str
    figure: str
    of: str
    to: str | None = None
    unit: Unit = "x"
    target: Bound | None = None
    stretch: Bound | None = None

    def values(self, figures: Figures) -> list[float] | None:
        """Return the value of each round, or None where the part was not (wholly) measured."""
        series = figures.get(self.part, {})
        if self.of not in series or (self.to is not None and self.to not in series):
            return None
        values = series[self.of][self.figure]
        return ratios(values, series[self.to][self.figure]) if self.to is not None else values


@dataclass(frozen=True)
class Result:
    """A target and what was measured; the medians of both sides beside their ratio."""

    target: Target
    measured: Spread
    of: float
    to: float | None

    @property
    def verdict(self) -> str:
        """Say whether the median meets the target, the stretch, or neither."""
        goal, stretch = self.target.target, self.target.stretch
        if stretch and stretch.holds(self.measured.median):
            return "yes, and the stretch" if goal else "the stretch"
        if goal:
            return "yes" if goal.holds(self.measured.median) else "no"
        return "no" if stretch else ""


def results(figures: Figures) -> list[Result]:
    """Return a result for each target whose part was measured."""
    found = []
    for target in TARGETS:
        values = target.values(figures)
        if values is not None:
            series = figures[target.part]
            of, to = (
                Spread.of(series[who][target.figure]).median if who is not None else None
                for who in (target.of, target.to)
            )
            assert of is not None
            found.append(Result(target, Spread.of(values), of, to))
    return found


def _at_least(value: float | None) -> Bound | None:
    return None if value is None else Bound(">" if value == 1 else ">=", value)


def _cheaper(
    what: str, part: str, than: str, target: float | None = None, stretch: float | None = None
) -> Target:
    """Compare Lantern's processor time with another's: how many times less it takes."""
    bounds = _at_least(target), _at_least(stretch)
    return Target(what, part, "cpu_us", than, LANTERN, "x", *bounds)


def _faster(
    what: str, part: str, than: str, target: float | None = None, stretch: float | None = None
) -> Target:
    bounds = _at_least(target), _at_least(stretch)
    return Target(what, part, "rps", LANTERN, than, "x", *bounds)


def _targets() -> Iterator[Target]:
    one = "`POST /predict`"
    limits: list[tuple[str, float | None, float | None]] = [
        ("plain", 2.5, 4.5),
        ("tuned", 1, 2),
        ("handtuned", 1, 1.25),
        ("granian", None, 1),
        ("litserve", None, None),
    ]
    for name, target, stretch in limits:
        yield _cheaper(f"{one}, CPU per request, against {name}", "predict", name, target, stretch)
        yield _faster(
            f"{one}, requests per second, against {name}", "predict", name, target, stretch
        )
    yield Target(
        f"{one}, p99, against plain",
        "predict",
        "p99_ms",
        "plain",
        LANTERN,
        "x",
        _at_least(2),
        _at_least(4),
    )
    yield from _through_flask(one)
    for size, target, stretch in zip(BATCH_SIZES, (8, 20), (12, 40), strict=True):
        for name in PEER_NAMES:
            goals = (target, stretch) if name == "plain" else (None, None)
            what = f"`POST /predict/batch`, {size:,} rows, CPU, against {name}"
            yield _cheaper(what, batch_part(size), name, *goals)
    yield Target(
        "from the start to the first 200",
        "footprint",
        "start_s",
        LANTERN,
        None,
        "s",
        Bound("<", 1.5),
        Bound("<", 0.8),
    )
    yield Target(
        "memory of two workers, against plain",
        "footprint",
        "memory_mib",
        "plain",
        LANTERN,
        "x",
        _at_least(2),
        _at_least(4),
    )
    yield Target(
        "memory of a further worker, checkpoint of 505 MiB",
        "further worker",
        "further_mib",
        LANTERN,
        None,
        "MiB",
        Bound("<=", 64),
        Bound("<=", 48),
    )
    yield Target(
        f"{one}, requests per second beside {SLOW_CLIENTS} slow clients, against without",
        "slow clients",
        "rps",
        BESIDE_SLOW,
        ALONE,
        "x",
        _at_least(0.9),
        _at_least(0.97),
    )
    off, *others = CACHE_VARIANTS
    for name in others:
        for part in (VARIED, REPEATED):
            yield Target(f"{one}, {part}, CPU, {name} against {off}", part, "cpu_us", off, name)
            yield Target(
                f"{one}, {part}, requests per second, {name} against {off}", part, "rps", name, off
            )
    off, *others = BATCHING_VARIANTS
    for name in others:
        what = f"{one}, a network of 5 ms and more"
        yield Target(
            f"{what}, requests per second, {name} against {off}", "batching", "rps", name, off
        )
        for p in ("p50", "p99"):
            yield Target(f"{what}, {p}, {name} against {off}", "batching", f"{p}_ms", off, name)
    yield from _by_connections(one)
    most = at(max(LOADS[BOUNDED]))
    yield Target(
        f"goodput, {most}, against {PEAK}", PART, "good_rps", most, PEAK, "x", _at_least(0.9)
    )
    yield Target(
        f"p99 of what is served, {most}",
        PART,
        "p99_ms",
        most,
        None,
        "ms",
        Bound("<", 2 * BUDGET_MS),
    )
    yield Target(
        f"p99 of refusals, {most}", PART, "refused_p99_ms", most, None, "ms", Bound("<", 50)
    )
    yield from _candidates(one)
    for part in (ROW, ROWS, IMAGE, BINARY_IMAGE):
        for name in (MLSERVER, KSERVE) if part != BINARY_IMAGE else (KSERVE,):
            target = 5 if part == ROW else None
            yield _cheaper(f"{part}, CPU per request, against {name}", part, name, target)
    yield Target(
        f"{BINARY_IMAGE}, CPU per request above a run in ONNX Runtime",
        BINARY_IMAGE,
        "above_us",
        ABOVE_RUNTIME,
        None,
        "us",
        Bound("<=", 150),
    )
    yield from _features_and_check(one)
    for row in migration_rows():
        yield Target(row.what, row.part, row.figure, row.of, row.to, "x", _at_least(row.least))


def _candidates(one: str) -> Iterator[Target]:
    for name, least in ((AGAIN, None), (CANARY, 0.95), (SHADOW, 0.9)):
        yield Target(
            f"{one}, requests per second, {name} against {NO_CANDIDATE}",
            SATURATED,
            "rps",
            name,
            NO_CANDIDATE,
            "x",
            _at_least(least),
        )
        yield Target(
            f"{one}, CPU per request, {NO_CANDIDATE} against {name}",
            SATURATED,
            "cpu_us",
            NO_CANDIDATE,
            name,
        )
        yield Target(
            f"{one}, p99 at 80 % of the peak, {name} against {NO_CANDIDATE}",
            AT_80,
            "p99_ms",
            NO_CANDIDATE,
            name,
        )


def _through_flask(one: str) -> Iterator[Target]:
    for path in ROUTES:
        what = f"`GET {path}`, CPU per request, against gthread"
        yield _cheaper(what, path, GTHREAD, 1.6, 2)
    yield _cheaper("`GET /health/live`, CPU per request, against tuned", ROUTES[0], "tuned")
    for name in (GTHREAD, "tuned"):
        what = f"{one} through Flask, CPU per request, against {name}"
        yield _cheaper(what, THROUGH_FLASK, name)


def _features_and_check(one: str) -> Iterator[Target]:
    for name in FEATURES:
        what = f"{one}, CPU per request, {name} against as it is"
        yield Target(what, ALONE_ON_AND_OFF, "cpu_us", AS_IT_IS, name)
        what = f"{one}, instructions, {name} against as it is"
        yield Target(what, ALONE_COUNTED, "instructions", AS_IT_IS, name)
    for ours, peers in COMPARED.items():
        yield Target(f"check: {ours} against {peers}, CPU", CHECKED, "cpu_us", peers, ours)
        if peers == REFERENCE and ours != INFO:
            what = f"{one}, instructions, {ours} against {REFERENCE}"
            yield Target(what, COUNTED, "instructions", REFERENCE, ours)


def _by_connections(one: str) -> Iterator[Target]:
    """Yield the rows on how callers connect."""
    saturated, fourfold = CONNECTIONS[2:4]
    yield Target(
        f"{one}, requests per second, {fourfold} connections against {saturated}",
        CONNECTED,
        "rps",
        connected(LANTERN, fourfold),
        connected(LANTERN, saturated),
        target=_at_least(0.9),
    )
    for name in CHEAP_PEERS:
        for number in CONNECTIONS:
            ours, theirs = connected(LANTERN, number), connected(name, number)
            what = f"{one}, CPU per request, {ours} against {name}"
            yield Target(what, CONNECTED, "cpu_us", theirs, ours)
        for part in (PIPELINED, PROXIED):
            yield _cheaper(f"{one}, {part}, CPU per request, against {name}", part, name)


TARGETS = tuple(_targets())
"""The rows of the table, in its order. Every ratio is turned so that more is better."""
