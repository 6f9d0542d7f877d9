"""Packing: all of a bundle or nothing, and never over something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.model import pack as packing
from app.model.errors import BundleError
from app.model.runtime import OnnxRuntime, TorchRuntime
from tests.model.conftest import CLASSES, FEATURES, make_network

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
    with pytest.raises(BundleError, match="is not a bundle; it is not replaced"):
        pack(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_export_that_answers_differently_is_not_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OnnxRuntime.run
    monkeypatch.setattr(OnnxRuntime, "run", lambda self, matrix: run(self, matrix) + 2e-5)
    with pytest.raises(BundleError, match="answers differently than torch: by up to 2e-05"):
        pack(tmp_path / "2")
    assert list(tmp_path.iterdir()) == []


def test_the_export_holds_no_path_of_the_machine_that_packed_it(packed: Path) -> None:
    content = (packed / "model.onnx").read_bytes()
    assert str(Path(packing.__file__).parent.parent).encode() not in content


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_the_export_takes_any_number_of_rows(packed: Path, rows: int) -> None:
    matrix = np.repeat(GOLDEN, rows, axis=0)[:rows]
    answers = OnnxRuntime(packed / "model.onnx", threads=1).run(matrix)
    expected = TorchRuntime(make_network(), threads=1).run(matrix)
    np.testing.assert_allclose(answers, expected, atol=1e-5)
