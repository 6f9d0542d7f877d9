"""The picture: what a prediction costs on each server, for readers who take in one thing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import overload
from benchmarks.figures import Figures, Spread
from benchmarks.measures import BATCH_SIZES, batch_part
from benchmarks.servers import LANTERN, PEER_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABELS = {
    LANTERN: "Lantern\nFlask, with\nlogs and\nmetrics",
    "plain": "plain\nFastAPI,\nPydantic,\ntorch",
    "tuned": "tuned\nFastAPI,\nONNX Rt.,\norjson",
    "handtuned": "hand-tuned\nStarlette,\nmsgspec,\nONNX Rt.",
    "granian": "Granian\nRSGI,\nmsgspec,\nONNX Rt.",
    "litserve": "LitServe\nONNX Rt.",
}
_NAMES = (LANTERN, *PEER_NAMES)
_OURS, _OTHERS = "#c2570c", "#8b95a1"
_HATCHES = ("", "///")


def can_draw(figures: Figures) -> bool:
    """Return whether what the picture shows was measured."""
    return "predict" in figures


def draw(path: Path, figures: Figures, caption: str) -> None:
    """Draw processor time and throughput of every server, and batches if they were measured.

    Every axis begins at zero. A bar is the median over the rounds, its whisker goes from the lowest
    to the highest.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    single = figures["predict"]
    has_batches = set(map(batch_part, BATCH_SIZES)) <= set(figures)
    panels = 3 if has_batches else 2
    drawing, (cpu, rate, *batch) = pyplot.subplots(
        1, panels, figsize=(17 / 3 * panels, 4.8), layout="constrained"
    )
    cpu.set_title("CPU per prediction, µs: less is better")
    _bars(cpu, [[single[name]["cpu_us"] for name in _NAMES]], "{:,.0f}")
    rate.set_title("Predictions per second: more is better")
    _bars(rate, [[single[name]["rps"] for name in _NAMES]], "{:,.0f}")
    for axes in batch:
        _draw_batches(axes, figures)
    drawing.suptitle(f"The same network behind {len(_NAMES)} servers, two workers each")
    drawing.supxlabel(
        f"Bars: medians; whiskers: lowest to highest. {caption}.", fontsize=8, color="#555555"
    )
    drawing.savefig(path, dpi=150)
    pyplot.close(drawing)


def _draw_batches(axes: Axes, figures: Figures) -> None:
    from matplotlib.patches import Patch

    axes.set_title("CPU per row of a batch, µs: less is better")
    by_size = [
        [[us / size for us in figures[batch_part(size)][name]["cpu_us"]] for name in _NAMES]
        for size in BATCH_SIZES
    ]
    _bars(axes, by_size, "{:,.1f}")
    axes.legend(
        handles=[
            Patch(facecolor=_OTHERS, edgecolor="white", hatch=hatch, label=f"{size:,} rows")
            for hatch, size in zip(_HATCHES, BATCH_SIZES, strict=True)
        ],
        frameon=False,
    )


def can_draw_overload(figures: Figures) -> bool:
    """Return whether goodput was measured over offered load."""
    return overload.PART in figures


def draw_overload(path: Path, figures: Figures, caption: str) -> None:
    """Draw goodput and the p99 of what is served over offered load, with a budget and without.

    Points are medians over the rounds; the bands go from the lowest to the highest.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, (good, p99) = pyplot.subplots(1, 2, figsize=(13, 4.8), layout="constrained")
    good.set_title("Goodput, predictions per second")
    p99.set_title("Latency, p99, ms")
    # Without a budget everything is served sooner or later: its goodput says nothing.
    _line(good, figures, overload.BOUNDED, "good_rps", colour=_OURS, label=overload.BOUNDED)
    for who, figure, what, colour in (
        (overload.BOUNDED, "p99_ms", "served", _OURS),
        (overload.UNBOUNDED, "p99_ms", "served", _OTHERS),
        (overload.BOUNDED, "refused_p99_ms", "refused", "#2b6cb0"),
    ):
        _line(p99, figures, who, figure, colour=colour, label=f"{what}, {who}")
    twice = 2 * overload.BUDGET_MS
    p99.axhline(twice, color="#555555", linewidth=0.8, linestyle=":")
    p99.annotate(
        "twice the budget",
        (max(overload.LOADS[overload.BOUNDED]), twice),
        ha="right",
        va="bottom",
        fontsize=8,
    )
    p99.set_yscale("log")
    good.set_ylim(bottom=0)
    for axes in (good, p99):
        axes.set_xlabel("offered load, times the peak")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    drawing.suptitle("Offered more than it can do: two workers, a network of some ten milliseconds")
    drawing.supxlabel(
        f"Points: medians; bands: lowest to highest. {caption}.", fontsize=8, color="#555555"
    )
    drawing.savefig(path, dpi=150)
    pyplot.close(drawing)


def _line(axes: Axes, figures: Figures, who: str, figure: str, *, colour: str, label: str) -> None:
    """Draw a figure over the loads of ``who``; where it is 0, there was nothing of the kind."""
    spreads = {
        load: Spread.of(figures[overload.PART][overload.at(load, who)][figure])
        for load in overload.LOADS[who]
    }
    there = {load: spread for load, spread in spreads.items() if spread.median > 0}
    axes.plot(list(there), [s.median for s in there.values()], "o-", color=colour, label=label)
    lowest, highest = [s.lowest for s in there.values()], [s.highest for s in there.values()]
    axes.fill_between(list(there), lowest, highest, color=colour, alpha=0.15, linewidth=0)


def _bars(axes: Axes, groups: Sequence[Sequence[Sequence[float]]], form: str) -> None:
    """Draw a bar for each server of each group, with its value and its whisker."""
    width = 0.8 / len(groups)
    colours = [_OURS if name == LANTERN else _OTHERS for name in _NAMES]
    for number, (group, hatch) in enumerate(zip(groups, _HATCHES, strict=False)):
        places = [i + (number - (len(groups) - 1) / 2) * width for i in range(len(_NAMES))]
        spreads = [Spread.of(values) for values in group]
        medians = [spread.median for spread in spreads]
        whiskers = [
            [spread.median - spread.lowest for spread in spreads],
            [spread.highest - spread.median for spread in spreads],
        ]
        axes.bar(
            places,
            medians,
            width * 0.92,
            color=colours,
            edgecolor="white",
            hatch=hatch,
            yerr=whiskers,
            capsize=3,
        )
        for place, spread in zip(places, spreads, strict=True):
            axes.annotate(
                form.format(spread.median),
                (place, spread.highest),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
            )
    axes.set_xticks(range(len(_NAMES)), [_LABELS[name] for name in _NAMES])
    highest = max(max(values) for group in groups for values in group)
    axes.set_ylim(0, highest * 1.12)  # room for the value above the tallest
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.spines[["top", "right"]].set_visible(False)
