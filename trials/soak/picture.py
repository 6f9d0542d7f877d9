"""The picture of a soak: requests, latency, memory and descriptors over time, and what happened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trials.load import Tally
from trials.soak.chaos import Ended, Event, Released
from trials.soak.watch import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"release": "#2f6db3", "SIGKILL": "#b3261e", "SIGTERM": "#c2870c", "SIGHUP": "#6b4fa0"}


def draw(
    path: Path,
    tallies: Sequence[Tally],
    samples: Sequence[Sample],
    events: Sequence[Event],
    caption: str,
) -> None:
    """Draw into ``path``; the time begins with the first load, in seconds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    zero = tallies[0].began
    figure, panels = pyplot.subplots(4, 1, figsize=(11, 10), sharex=True, layout="constrained")
    rate, latency, memory, held = panels
    for tally in tallies:
        # The first and the last second of a load are parts of one.
        seconds = sorted(tally.seconds)[1:-1]
        times = [second - zero for second in seconds]
        rate.plot(times, [tally.seconds[s].answers for s in seconds], color="#333333", lw=0.8)
        for name, colour in (("p50_ms", "#333333"), ("p99_ms", "#c2570c")):
            values = [getattr(tally.seconds[s], name) for s in seconds]
            latency.plot(times, values, color=colour, lw=0.8)
    rate.set_ylabel("right answers a second")
    rate.set_ylim(bottom=0)
    latency.set_ylabel("latency, ms: median, p99")
    latency.set_yscale("log")
    times = [sample.at - zero for sample in samples]
    memory.plot(times, [sample.tree_mib for sample in samples], color="#333333", lw=1.2)
    memory.set_ylabel("MiB (PSS) of all processes")
    memory.set_ylim(bottom=0)
    total = [
        sample.master.descriptors + sum(one.descriptors for one in sample.workers.values())
        for sample in samples
    ]
    held.plot(times, total, color="#333333", lw=0.8)
    held.set_ylabel("open descriptors, all")
    held.set_ylim(bottom=0)
    held.set_xlabel(f"seconds\n{caption}", fontsize=8)
    for panel in panels:
        _mark(panel, events, zero)
        panel.spines[["top", "right"]].set_visible(False)
    handles = [Line2D([], [], color=colour, lw=1, label=name) for name, colour in _COLOURS.items()]
    rate.legend(handles=handles, ncols=4, frameon=False, loc="lower right", fontsize=8)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _mark(panel: Axes, events: Sequence[Event], zero: float) -> None:
    for event in events:
        kind = "release" if isinstance(event, Released) else event.what
        if isinstance(event, Ended | Released) or kind in _COLOURS:
            panel.axvline(event.ended - zero, color=_COLOURS[kind], lw=0.7, alpha=0.5)
