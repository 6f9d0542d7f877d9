"""TorchScript: converted where its owner allows its program to run, and never otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from app.model.errors import BundleError
from app.model.network import read_checkpoint
from app.packing.programs.torchscript import open_torchscript

pytestmark = pytest.mark.filterwarnings("ignore")


class Two(nn.Module):
    """Takes two tensors, and what may be left out; answers with three."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Embedding(9, 4)

    def forward(
        self, ids: Tensor, numbers: Tensor, extra: Tensor | None = None, factor: int = 3
    ) -> tuple[Tensor, Tensor, tuple[Tensor]]:
        if numbers.sum() > 0:
            numbers = numbers * factor
        return self.inner(ids).sum(1), numbers.mean(0), (ids + 1,)


EXAMPLES = {"numbers": np.ones((2, 4), np.float32), "ids": np.ones((2, 3), np.int64)}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(Two().eval()), path)
    return path


def test_it_is_converted_with_its_branches_for_any_number_of_rows(script: Path) -> None:
    source = open_torchscript(script, EXAMPLES)
    assert [(s.name, s.datatype, s.shape) for s in source.inputs] == [
        ("ids", "INT64", (-1, 3)),
        ("numbers", "FP32", (-1, 4)),
    ]
    outputs = [output.spec for output in source.outputs]
    assert [spec.shape for spec in outputs] == [(-1, 4), (4,), (-1, 3)]
    session = onnxruntime.InferenceSession(source.graph.SerializeToString())
    names = [each.name for each in session.get_outputs()]
    assert names == [spec.name for spec in outputs] == ["output_0", "output_1", "output_2"]
    chance = np.random.default_rng(0)
    for rows, sign in ((1, 1), (7, 1), (7, -1)):
        numbers = sign * chance.random((rows, 4), np.float32)
        given = {"ids": chance.integers(0, 9, (rows, 3)), "numbers": numbers}
        found = source.ask(given)
        np.testing.assert_allclose(
            found["output_1"], numbers.mean(0) * (3 if sign > 0 else 1), rtol=1e-5
        )
        for name, served in zip(names, session.run(None, given), strict=True):
            np.testing.assert_allclose(found[name], served, atol=1e-5)
    assert "every other dimension is taken to be as in the example" in source.notes[0]


def test_a_traced_and_frozen_module_is_converted(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    traced = torch.jit.freeze(torch.jit.trace(model, torch.zeros(2, 4)))
    torch.jit.save(traced, tmp_path / "model.pt")
    source = open_torchscript(tmp_path / "model.pt", {"input": np.ones((1, 4), np.float32)})
    rows = np.random.default_rng(0).random((5, 4), np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(source.ask({"input": rows})["output"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"numbers": None}, "takes 'numbers' (Tensor), and the examples have no array"),
        (
            {"other": np.ones(2)},
            "takes 'ids', 'numbers', 'extra', 'factor'; the examples have 'oth",
        ),
        ({"ids": np.ones((2, 3), np.float32)}, "can't be run: RuntimeError: Expected tensor for"),
        ({"ids": None, "numbers": None}, "the examples have nothing"),
    ],
)
def test_examples_that_do_not_fit_are_told(script: Path, change: Any, said: str) -> None:
    examples = {name: v for name, v in (EXAMPLES | change).items() if v is not None}
    with pytest.raises(BundleError) as error:
        open_torchscript(script, examples)
    assert said in str(error.value)


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(BundleError, match=r"can't be loaded by torch\.jit\.load"):
        open_torchscript(tmp_path / "model.pt", EXAMPLES)


def test_without_leave_it_is_not_loaded_and_the_error_has_the_line_that_does(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("its program ran")

    monkeypatch.setattr(torch.jit, "load", loaded)
    with pytest.raises(BundleError) as error:
        read_checkpoint(script)
    assert "whose own program runs when it is loaded" in str(error.value)
    assert "model pack FILE --allow-code --samples SAMPLES --out models/NAME/1" in str(error.value)
