"""A small bundle of its own for the tests of `app.model`: packed once, copied to be damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from app.model.features import Feature
from app.model.network import Network
from app.packing.network import pack

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


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, in a directory of versions; don't change it."""
    out = tmp_path_factory.mktemp("models") / "example" / "1"
    golden = np.array([[30, 20_000, 1], [60, np.nan, 9], [300, 1e9, 0]], dtype=np.float32)
    pack(
        make_network(),
        out,
        name="example",
        version="1",
        features=FEATURES,
        classes=CLASSES,
        golden_samples=golden,
        training={"roc_auc": 0.8},
        documents={"README.md": b"# example\n"},
    )
    return out


@pytest.fixture
def bundle(packed: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be damaged."""
    return Path(shutil.copytree(packed, tmp_path / "example" / "1"))
