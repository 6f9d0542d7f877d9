"""A small model: its features and classes, and a network that uses all of the preprocessing."""

from __future__ import annotations

import torch

from app.model.features import Feature
from app.model.network import Network

FEATURES = (
    Feature("age", "Age", "years", 18, 90, example=40),
    Feature("income", "Income", "a year", 0, 200_000, nullable=True, example=50_000),
    Feature("visits", "Visits", "count", 0, 20, example=3),
)
CLASSES = ("no", "maybe", "yes")


def make_network() -> Network:
    """A network with every step of preprocessing in use, and random weights."""
    torch.manual_seed(7)
    network = Network(len(FEATURES), 16, len(CLASSES))
    steps = network.preprocessing
    steps.impute.median[:] = torch.tensor([40.0, 50_000.0, 3.0])
    steps.clip.minimum[0], steps.clip.maximum[0] = 18.0, 100.0
    steps.log1p.selected[1] = True
    steps.standardise.mean[:] = torch.tensor([45.0, 10.5, 4.0])
    steps.standardise.scale[:] = torch.tensor([15.0, 0.8, 3.0])
    return network
