"""Overload: what a service still achieves when it is offered more than it can do.

Loads are multiples of the peak, which is taken anew in each round: what saturated connections in a
closed loop get. The network takes some ten milliseconds, so that the program which offers the load
takes little of the processor time that the service needs.
"""

from __future__ import annotations

from benchmarks import checkpoints
from benchmarks.bench import Bench
from benchmarks.figures import interleaved
from benchmarks.load import wrk
from benchmarks.offered import offer
from benchmarks.servers import Server, all_running, lantern

PART = "overload"
WIDTH = 10_000
"""Units of a hidden layer of a network that takes more than 10 ms for a row."""
BUDGET_MS = 100
BOUNDED, UNBOUNDED = f"budget of {BUDGET_MS} ms", "no budget"
LOADS = {BOUNDED: (0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 4.0), UNBOUNDED: (0.5, 0.8, 1.0, 1.5)}
"""Without a budget more would only take longer to show the same: the line grows without end."""
PEAK = "the peak"
SATURATING = 8
"""Connections in a closed loop that keep two workers busy."""


def at(load: float, who: str = BOUNDED) -> str:
    """Name what is noted of ``load`` times the peak."""
    return f"{who}, {load:g} times the peak"


def overload(bench: Bench) -> None:
    """Measure goodput, latency and refusals over offered load, with a budget and without."""
    path = bench.directory / "overload.pt"
    checkpoints.write(path, WIDTH)
    budgets = {BOUNDED: BUDGET_MS, UNBOUNDED: 0}
    programs = [
        lantern(
            who, checkpoints.settings(path) | {"LANTERN_LIMITS__QUEUE_BUDGET_MS": str(milliseconds)}
        )
        for who, milliseconds in budgets.items()
    ]
    bodies = bench.complete.read_bytes().splitlines()
    with all_running(programs, bench.directory) as servers:
        unbounded = next(server for server in servers if server.name == UNBOUNDED)
        slots = [(server, load) for server in servers for load in LOADS[server.name]]
        peaks: list[float] = []
        for number, (server, load) in enumerate(interleaved(slots, bench.rounds)):
            if number % len(slots) == 0:
                peaks.append(_saturated(bench, unbounded))
            _offer(bench, server, load, peaks[-1], bodies)
    path.unlink()
    for number in range(bench.rounds):
        best = max(bench.figures[PART][at(load)]["good_rps"][number] for load in LOADS[BOUNDED])
        bench.record(PART, PEAK, good_rps=best)


def _saturated(bench: Bench, server: Server) -> float:
    """Return the requests per second that saturated connections get."""
    seen = wrk(server, "/predict", bench.seconds, bodies=bench.complete, connections=SATURATING)
    for fault in seen.faults:
        bench.fault(PART, f"at the peak: {fault}")
    return seen.requests_per_second


def _offer(bench: Bench, server: Server, load: float, peak: float, bodies: list[bytes]) -> None:
    seen = offer(server, "/predict", bodies, peak * load, bench.seconds)
    server.forget_log()
    who = at(load, server.name)
    for fault in seen.faults:
        bench.fault(PART, f"{who}: {fault}")
    for status in set(seen.latencies) - {200, 503}:
        bench.fault(PART, f"{who}: answers of {status}")
    bench.record(
        PART,
        who,
        offered_rps=seen.offered / seen.seconds,
        good_rps=seen.count(200) / seen.lasted,
        p50_ms=seen.quantile_ms(200, 0.5),
        p99_ms=seen.quantile_ms(200, 0.99),
        refused_rps=seen.count(503) / seen.lasted,
        refused_p99_ms=seen.quantile_ms(503, 0.99),
    )
