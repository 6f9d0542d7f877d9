"""Models that are not ours, as their users would export them."""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.model.features import Feature
from app.packing.description import ModelDescription
from app.packing.network import quiet_exporter
from app.packing.source import GraphSource

NAMES = ("a", "b", "c", "d")
ANY_ROWS = ({0: torch.export.Dim("rows")},)


@pytest.fixture(scope="session", autouse=True)
def operators_listed_once() -> Iterator[None]:
    """Spare every export but the first what makes up most of it: to list the operators that can be
    converted, and those that torch composes of others. Here they are always the same.
    """
    from torch._export import utils
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        convertible = functools.cache(ONNXRegistry.from_torchlib)
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(convertible))
        # torch itself can't keep these: programs may register operators. No test does.
        composite = functools.cache(utils._collect_all_valid_cia_ops_for_namespace)
        patch.setattr(utils, "_collect_all_valid_cia_ops_for_namespace", composite)
        yield


class Residual(nn.Module):
    """A network that Lantern has no class for: its own scaling, LayerNorm, GELU and a skip."""

    def __init__(self, *, softmax: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.register_buffer("mean", torch.full((4,), 2.0))
        self.into = nn.Linear(4, 16)
        self.norm = nn.LayerNorm(16)
        self.drop = nn.Dropout()
        self.out = nn.Linear(16, 3)
        self.softmax = softmax

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.gelu(self.into((x - self.mean) / 3))
        logits: Tensor = self.out(hidden + self.drop(self.norm(hidden)))
        return torch.softmax(logits, dim=1) if self.softmax else logits


def plain() -> nn.Module:
    """Layers of which ONNX Runtime has every operator in float64 too."""
    torch.manual_seed(3)
    layers = (nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    return nn.Sequential(*layers).eval()


def save_program(
    model: nn.Module,
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    dynamic_shapes: Any = ANY_ROWS,
    rows: int = 2,
) -> Path:
    """Export ``model`` as its user would."""
    example = (torch.zeros((rows, 4), dtype=dtype),)
    torch.export.save(torch.export.export(model, example, dynamic_shapes=dynamic_shapes), path)
    return path


def save_onnx(
    model: nn.Module, path: Path, *, dtype: torch.dtype = torch.float32, **options: Any
) -> Path:
    """Export ``model`` to ONNX as its user would."""
    with quiet_exporter():
        example = (torch.zeros((2, 4), dtype=dtype),)
        torch.onnx.export(model, example, str(path), dynamo=True, verbose=False, **options)
    return path


def asked(source: GraphSource, rows: Any) -> Any:
    """Return what an original of one input and one output answers to ``rows``."""
    (spec,) = source.inputs
    (answer,) = source.ask({spec.name: rows}).values()
    return answer


def rewrite(source: Path, target: Path, edit: Callable[[dict[str, bytes]], None]) -> Path:
    """Write the archive ``source`` anew, its files (without the root's name) edited."""
    with zipfile.ZipFile(source) as archive:
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    edit(files)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"model/{name}", content)
    return target


def editing(name: str, edit: Callable[[Any], object]) -> Callable[[dict[str, bytes]], None]:
    """Return an edit for `rewrite` of the JSON document ``name``."""

    def apply(files: dict[str, bytes]) -> None:
        document = json.loads(files[name])
        edit(document)
        files[name] = json.dumps(document).encode()

    return apply


def describe(*, medians: dict[str, float] | None = None, **changes: Any) -> ModelDescription:
    """Describe the models above; ``changes`` are features by name."""
    features = tuple(changes.get(name, Feature(name)) for name in NAMES)
    return ModelDescription(features, ("x", "y", "z"), medians=medians or {})


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real exported program that gives logits; don't change it."""
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    return save_program(Residual().eval(), path)


@pytest.fixture(scope="session")
def values() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Rows of features, float32 (200, 4)."""
    return np.random.default_rng(0).normal(2, 3, (200, 4)).round(3).astype(np.float32)


@pytest.fixture
def samples(tmp_path: Path, values: Any) -> Path:
    """A CSV of them, with a label that no feature is called like."""
    path = tmp_path / "samples.csv"
    rows = (",".join(map(str, [*row, "yes"])) for row in values.tolist())
    path.write_text("\n".join([",".join([*NAMES, "label"]), *rows, ""]))
    return path
