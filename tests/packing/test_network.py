"""Packing: all of a bundle or nothing, and never over something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.model.errors import BundleError
from app.model.network import Network
from app.model.onnx_runtime import OnnxRuntime
from app.model.signature import Tensors, classifier_graph
from app.model.torch_runtime import TorchRuntime
from app.packing import network as packing
from app.packing.answers import probabilities_of
from tests.small_model import CLASSES, FEATURES, make_network

GOLDEN = np.array([[30, 20_000, 1], [60, np.nan, 9]], dtype=np.float32)


def pack(out: Path, **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "name": "example",
        "version": "2",
        "features": FEATURES,
        "classes": CLASSES,
        "golden_samples": GOLDEN,
    }
    packing.pack(make_network(), out, **(arguments | changes))


def test_a_bundle_is_replaced_by_the_next_one(tmp_path: Path) -> None:
    out = tmp_path / "example" / "2"
    pack(out, description="the first")
    pack(out, description="the second")
    assert json.loads((out / "manifest.json").read_text())["description"] == "the second"
    assert [path.name for path in out.parent.iterdir()] == ["2"]


def test_a_directory_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="is not a bundle, so it is not replaced"):
        pack(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_export_that_answers_differently_is_not_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OnnxRuntime.run

    def off(self: OnnxRuntime, inputs: Tensors) -> Tensors:
        return {name: array + 2e-5 for name, array in run(self, inputs).items()}

    monkeypatch.setattr(OnnxRuntime, "run", off)
    with pytest.raises(BundleError, match="differs from torch by up to 2e-05"):
        pack(tmp_path / "2")
    assert list(tmp_path.iterdir()) == []


def test_the_export_holds_no_path_of_the_machine_that_packed_it(packed: Path) -> None:
    content = (packed / "model.onnx").read_bytes()
    assert str(Path(packing.__file__).parent.parent).encode() not in content


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_the_export_takes_any_number_of_rows(packed: Path, rows: int) -> None:
    matrix = np.repeat(GOLDEN, rows, axis=0)[:rows]
    answers = probabilities_of(
        OnnxRuntime(packed / "model.onnx", 1, classifier_graph(3, 3)), matrix
    )
    expected = probabilities_of(TorchRuntime(make_network(), threads=1), matrix)
    np.testing.assert_allclose(answers, expected, atol=1e-5)


def test_packing_leaves_the_callers_network_as_it_was(tmp_path: Path) -> None:
    network = make_network().train()
    arguments = {"name": "x", "version": "1", "features": FEATURES, "classes": CLASSES}
    packing.pack(network, tmp_path / "1", golden_samples=GOLDEN, **arguments)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_network_that_overflows_alike_in_both_runtimes_is_packed(tmp_path: Path) -> None:
    network = Network(3, 8, 3, preprocess=False)
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)
    arguments = {"name": "x", "version": "1", "features": FEATURES, "classes": CLASSES}
    golden = np.ones((1, 3), dtype=np.float32)
    packing.pack(network, tmp_path / "1", golden_samples=golden, **arguments)
    assert (tmp_path / "1" / "manifest.json").is_file()
