"""The picture: what a prediction costs on each server, for readers who take in one thing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figures, Spread
from benchmarks.measures import BATCH_SIZES, batch_part
from benchmarks.servers import LANTERN, PEER_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABELS = {
    LANTERN: "Lantern\nFlask, with\nlogs and\nmetrics",
    "plain": "plain\nFastAPI,\nPydantic,\neager torch",
    "tuned": "tuned\nFastAPI,\nONNX Rt.,\norjson",
    "handtuned": "hand-tuned\nStarlette,\nmsgspec,\nONNX Rt.",
}
_NAMES = (LANTERN, *PEER_NAMES)
_OURS, _OTHERS = "#c2570c", "#8b95a1"
_HATCHES = ("", "///")


def can_draw(figures: Figures) -> bool:
    """Tell whether what the picture shows was measured."""
    return {"predict", *map(batch_part, BATCH_SIZES)} <= set(figures)


def draw(path: Path, figures: Figures, caption: str) -> None:
    """Draw processor time, throughput and batches of every server; every axis begins at zero.

    A bar is the median over the rounds, its whisker goes from the lowest to the highest.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    single = figures["predict"]
    drawing, (cpu, rate, batch) = pyplot.subplots(1, 3, figsize=(13, 4.8), layout="constrained")
    cpu.set_title("CPU per prediction, µs: less is better")
    _bars(cpu, [[single[name]["cpu_us"] for name in _NAMES]], "{:,.0f}")
    rate.set_title("Predictions per second: more is better")
    _bars(rate, [[single[name]["rps"] for name in _NAMES]], "{:,.0f}")
    batch.set_title("CPU per row of a batch, µs: less is better")
    by_size = [
        [[us / size for us in figures[batch_part(size)][name]["cpu_us"]] for name in _NAMES]
        for size in BATCH_SIZES
    ]
    _bars(batch, by_size, "{:,.1f}")
    batch.legend(
        handles=[
            Patch(facecolor=_OTHERS, edgecolor="white", hatch=hatch, label=f"{size:,} rows")
            for hatch, size in zip(_HATCHES, BATCH_SIZES, strict=True)
        ],
        frameon=False,
    )
    drawing.suptitle("The same network behind four servers, two workers each")
    drawing.supxlabel(
        f"Bars: medians; whiskers: lowest to highest. {caption}.", fontsize=8, color="#555555"
    )
    drawing.savefig(path, dpi=150)
    pyplot.close(drawing)


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
