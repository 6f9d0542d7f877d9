"""Train the example model: ``python -m training.train --data CSV --out models/NAME/VERSION``.

Cross-validates the network beside two baselines, trains it on all rows, and writes the bundle.
Exits with 2 and one sentence on standard error when the data or the place is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from app.documents.text import print_anything
from app.model.errors import BundleError
from app.packing.bundle_writer import check_replaceable
from app.packing.network import pack
from app.worker.cores import usable_cores
from training.card import RELIABILITY_PICTURE, ROC_PICTURE, write_card
from training.data import CLASSES, Data, DataError, read_data
from training.describe import (
    describe_features,
    describe_samples,
    describe_training,
    golden_samples,
)
from training.evaluate import METRIC_NAMES, MODELS, Evaluation, cross_validate
from training.fit import Recipe, fit_network
from training.metrics import Metrics
from training.plots import reliability_picture, roc_picture

_TITLES = ("ROC AUC", "avg. precision", "Brier score", "calibr. error")
"""Of ``METRIC_NAMES``, in their order."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says; gives the exit status."""
    options = _parser().parse_args(arguments)
    print_anything()
    # By itself torch has a thread for each core of the machine, and knows of no quota.
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    recipe = replace(Recipe(), epochs=options.epochs)
    try:
        check_replaceable(options.out)  # before the minutes of training, not after
        data = read_data(options.data)
        train(data, options.out, recipe, folds=options.folds, seed=options.seed)
    except (DataError, BundleError, OSError) as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    print(f"The bundle is in {options.out}.")
    return 0


def train(data: Data, out: Path, recipe: Recipe, *, folds: int, seed: int) -> Evaluation:
    """Cross-validate, train on all rows and write the bundle to ``out``, reporting on the way.

    Raises `DataError` when the data has too few rows of a class for ``folds``.
    """
    with tqdm(total=(folds + 1) * recipe.epochs, unit="epoch", desc=f"fold 1/{folds}") as bar:

        def on_fold(number: int, metrics: Mapping[str, Metrics]) -> None:
            bar.write("\n".join(_fold_lines(number, metrics)))
            bar.set_description(f"fold {number + 1}/{folds}" if number < folds else "all rows")

        bar.write(_header())
        evaluation = cross_validate(
            data, recipe, folds=folds, seed=seed, on_epoch=bar.update, on_fold=on_fold
        )
        network = fit_network(data.features, data.labels, recipe, seed, bar.update)
    print("\n".join(_summary_lines(evaluation)))
    features = describe_features(data)
    name, version = _place(out)
    card = write_card(
        data,
        features,
        recipe,
        evaluation,
        title=f"{name}, version {version}",
        command=_command(out, recipe, folds=folds, seed=seed),
    )
    pack(
        network,
        out,
        name=name,
        version=version,
        features=features,
        classes=CLASSES,
        golden_samples=golden_samples(data, network),
        reference=describe_samples(data, network),
        description="Whether a retailer's customer accepts the offer of a campaign.",
        training=describe_training(data, recipe, seed=seed, evaluation=evaluation),
        documents={
            "README.md": card.encode(),
            ROC_PICTURE: roc_picture(data.labels, evaluation),
            RELIABILITY_PICTURE: reliability_picture(data.labels, evaluation),
        },
    )
    return evaluation


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.train",
        description="Train the campaign-response model and write its bundle.",
    )
    parser.add_argument("--data", type=Path, required=True, help="the CSV of customers")
    parser.add_argument(
        "--out", type=Path, required=True, help="the bundle to write, as models/NAME/VERSION"
    )
    parser.add_argument(
        "--seed",
        type=_whole_number(0, 2**32 - 1),
        default=0,
        help="of folds and weights (default: %(default)s)",
    )
    parser.add_argument(
        "--folds",
        type=_whole_number(2),
        default=5,
        help="of the cross-validation (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs",
        type=_whole_number(1),
        default=Recipe().epochs,
        help="of every run (default: %(default)s)",
    )
    return parser


def _whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(
                f"{number} is not between {least} and {most}"
                if most is not None
                else f"{number} is less than {least}"
            )
        return number

    parse.__name__ = "whole number"  # argparse names the type so when int() fails
    return parse


def _place(out: Path) -> tuple[str, str]:
    """Return the name and the version that a bundle's path says, never where a link leads."""
    parts = Path(os.path.abspath(out)).parts  # noqa: PTH100 -- Path keeps "..", resolve() follows
    return parts[-2], parts[-1]


def _command(out: Path, recipe: Recipe, *, folds: int, seed: int) -> str:
    """Return the command that makes this bundle again, free of this machine's paths."""
    place = "models/" + "/".join(_place(out))
    defaults = _parser().parse_args(["--data", "customers.csv", "--out", place])
    options = {"folds": folds, "seed": seed, "epochs": recipe.epochs}
    changed = [f"--{n} {v}" for n, v in options.items() if v != getattr(defaults, n)]
    return " ".join(
        ["python -m training.train", f"--data {defaults.data}", f"--out {place}", *changed]
    )


def _header() -> str:
    titles = "".join(f"{title:>17}" for title in _TITLES)
    return f"{'fold':<6}{'model':<20}{titles}"


def _fold_lines(number: int, metrics: Mapping[str, Metrics]) -> list[str]:
    return [
        f"{number:<6}{model:<20}"
        + "".join(f"{getattr(metrics[model], metric):>17.4f}" for metric in METRIC_NAMES)
        for model in MODELS
    ]


def _summary_lines(evaluation: Evaluation) -> list[str]:
    def cell(model: str, metric: str) -> str:
        return f"{evaluation.mean(model, metric):.4f} ± {evaluation.spread(model, metric):.4f}"

    return [
        f"{'mean':<6}{model:<20}" + "".join(f"{cell(model, m):>17}" for m in METRIC_NAMES)
        for model in MODELS
    ]


if __name__ == "__main__":
    sys.exit(main())
