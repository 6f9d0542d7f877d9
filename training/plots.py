"""Pictures of an evaluation, as PNG bytes: the same bytes for the same figures.

Drawn on `Figure` objects, without pyplot: no display and no global state.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from training.evaluate import MODELS, NETWORK, Evaluation

# Okabe and Ito's colours, told apart by people with any colour vision; the network first.
_STYLES = dict(zip(MODELS, (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^")), strict=True))
_GUIDE: dict[str, Any] = {"color": "#888888", "linestyle": ":", "linewidth": 1.2}
_QUANTILES = 10


def roc_picture(labels: NDArray[np.int64], evaluation: Evaluation) -> bytes:
    """Draw the ROC curve of every model: ``labels`` ``(n,)`` against out-of-fold probabilities."""
    figure, axes = _square(
        "Share of others addressed (false positive rate)",
        "Share of responders addressed (true positive rate)",
    )
    for model in MODELS:
        false_positive, true_positive, _ = roc_curve(labels, evaluation.probabilities[model])
        area, spread = evaluation.mean(model, "roc_auc"), evaluation.spread(model, "roc_auc")
        axes.plot(
            false_positive,
            true_positive,
            color=_STYLES[model][0],
            linewidth=2.0 if model == NETWORK else 1.3,
            label=f"{model} (AUC {area:.3f} ± {spread:.3f})",
        )
    axes.plot([0, 1], [0, 1], label="chance (AUC 0.5)", **_GUIDE)
    axes.set_title("ROC curves on rows not trained on", fontsize=12)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="lower right", fontsize=9, frameon=False)
    return _png(figure)


def reliability_picture(labels: NDArray[np.int64], evaluation: Evaluation) -> bytes:
    """Draw observed shares of ``labels`` ``(n,)`` over out-of-fold probabilities, every model.

    Each point is a tenth of the rows, by rising probability, so that all points rest on as much;
    the network's bars are 95 % intervals of the observed share.
    """
    figure, axes = _square("Predicted probability of a response", "Observed share of responses")
    highest = 0.0
    axes.plot([0, 1], [0, 1], label="perfect calibration", **_GUIDE)
    for model in MODELS:
        predicted, observed, counts = quantile_shares(labels, evaluation.probabilities[model])
        error = evaluation.mean(model, "expected_calibration_error")
        colour, marker = _STYLES[model]
        if model == NETWORK:
            low, high = wilson_interval(observed, counts)
            bars = np.maximum(0.0, [observed - low, high - observed])
            axes.errorbar(
                predicted, observed, yerr=bars, fmt="none", ecolor=colour, capsize=3, alpha=0.6
            )
            highest = max(highest, float(high.max()))
        axes.plot(
            predicted,
            observed,
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=2.0 if model == NETWORK else 1.3,
            label=f"{model} (ECE {error:.3f})",
        )
        highest = max(highest, float(predicted.max()), float(observed.max()))
    axes.set_title("Reliability on rows not trained on", fontsize=12)
    limit = min(1.0, np.ceil(highest * 10 + 0.5) / 10)
    axes.set(xlim=(0, limit), ylim=(0, limit))
    axes.legend(loc="upper left", fontsize=9, frameon=False)
    return _png(figure)


def quantile_shares(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Cut rows, by rising probability, into tenths.

    Gives three ``(10,)``: a tenth's mean probability, its share of responses, and its rows.
    """
    parts = np.array_split(np.argsort(probabilities, kind="stable"), _QUANTILES)
    return (
        np.array([probabilities[part].mean() for part in parts]),
        np.array([labels[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


def wilson_interval(
    shares: NDArray[np.float64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 95 % interval of each share ``(k,)`` seen in so many rows ``(k,)``: low and high.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    z = 1.96
    centre = (shares + z**2 / (2 * counts)) / (1 + z**2 / counts)
    reach = z * np.sqrt(shares * (1 - shares) / counts + (z / (2 * counts)) ** 2)
    return centre - reach / (1 + z**2 / counts), centre + reach / (1 + z**2 / counts)


def _square(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    axes = figure.subplots()
    axes.set_aspect("equal")
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
