"""Fitting: a network from rows, the same weights bit for bit for the same rows and seed.

Preprocessing takes its statistics from the rows that it is given and from no others, so a caller
that holds rows back holds them back from everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.model.network import Network, Preprocessing
from training.data import CLASSES, FEATURE_NAMES, DataError

HIDDEN_DIM = 64
AGE_RANGE = (18.0, 100.0)
"""Ages are held within it: below are no customers, and above are mistyped years of birth."""

LOGARITHMIC = frozenset({"income"})


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train: chosen by repeated cross-validation, and the same in every fold.

    AdamW under a one-cycle schedule: the learning rate rises to ``learning_rate`` in the first
    ``warm_up`` of all steps, and falls to zero by half a cosine. ``noise`` is the standard
    deviation of the Gaussian noise that each batch's standard scores get: the same customer
    is never seen twice, which regularises more than weight decay does on so few rows (Bishop,
    "Training with noise is equivalent to Tikhonov regularization", 1995).
    """

    epochs: int = 60
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    warm_up: float = 0.1
    noise: float = 0.3


def fit_preprocessing(features: NDArray[np.float32]) -> Preprocessing:
    """Take medians, means and deviations from raw ``features``, float32 ``(n, d)``, NaN for blank.

    Medians are of raw values; means and deviations are of what is imputed, clipped and
    logarithmic, which is what the network standardises. Raises `DataError` for a column of blanks.
    """
    blank = np.isnan(features).all(axis=0)
    if blank.any():
        names = ", ".join(repr(FEATURE_NAMES[i]) for i in np.flatnonzero(blank))
        raise DataError(f"The rows to train on have no value in {names}.")
    steps = Preprocessing(len(FEATURE_NAMES))
    steps.impute.median.copy_(torch.from_numpy(np.nanmedian(features, axis=0)))
    age = FEATURE_NAMES.index("age")
    steps.clip.minimum[age], steps.clip.maximum[age] = AGE_RANGE
    steps.log1p.selected.copy_(torch.tensor([name in LOGARITHMIC for name in FEATURE_NAMES]))
    with torch.no_grad():
        values = steps.log1p(steps.clip(steps.impute(_tensor(features)))).double()
    scale = values.std(dim=0, correction=0)
    steps.standardise.mean.copy_(values.mean(dim=0))
    # A column of one value tells nothing, and must not divide by zero.
    steps.standardise.scale.copy_(torch.where(scale > 0, scale, 1.0))
    return steps


def fit_network(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    recipe: Recipe,
    seed: int,
    on_epoch: Callable[[], object] = lambda: None,
) -> Network:
    """Train a network on raw ``features`` float32 ``(n, d)`` and ``labels`` int64 ``(n,)``.

    ``on_epoch`` is called after every epoch. Gives the network in evaluation mode. Raises
    `DataError` as `fit_preprocessing` does.
    """
    with deterministic(seed):
        network = Network(len(FEATURE_NAMES), HIDDEN_DIM, len(CLASSES))
        network.preprocessing = fit_preprocessing(features)
        with torch.no_grad():
            scores: Tensor = network.preprocessing(_tensor(features))
        _train(network.classifier, scores, torch.from_numpy(labels), recipe, on_epoch)
    return network.eval().requires_grad_(False)


def predict(network: Network, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probability of a response, ``(n,)``, for raw ``features`` float32 ``(n, d)``."""
    with torch.inference_mode():
        probabilities = torch.softmax(network.eval()(_tensor(features)), dim=1)
    return probabilities[:, 1].double().numpy()


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Make torch repeat itself within: one seed, one thread, deterministic algorithms.

    Threads split sums, and a sum split otherwise rounds otherwise. What torch's random state and
    settings were is restored.
    """
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(threads)


def _train(
    classifier: nn.Module,
    scores: Tensor,
    labels: Tensor,
    recipe: Recipe,
    on_epoch: Callable[[], object],
) -> None:
    """Train ``classifier`` in place on standard scores float32 ``(n, d)`` by cross-entropy."""
    classifier.train()
    optimizer = torch.optim.AdamW(
        classifier.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    steps = recipe.epochs * math.ceil(len(labels) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _one_cycle(step, steps, recipe.warm_up)
    )
    for _ in range(recipe.epochs):
        for rows in torch.split(torch.randperm(len(labels)), recipe.batch_size):
            batch = scores[rows]
            batch = batch + recipe.noise * torch.randn_like(batch)
            loss = nn.functional.cross_entropy(classifier(batch), labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        on_epoch()


def _one_cycle(step: int, steps: int, warm_up: float) -> float:
    """Return the part of the learning rate to use at ``step`` of ``steps``."""
    rise = max(1.0, warm_up * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise)))


def _tensor(features: NDArray[np.float32]) -> Tensor:
    return torch.tensor(features, dtype=torch.float32)
