"""bfloat16 in arrays of float32: rounded as torch rounds it, and exact both ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.model import bfloat16
from app.model.columns import TensorColumns
from app.model.encoder import FeatureEncoder
from app.model.features import Feature
from app.model.signature import TensorSpec

BITS = np.arange(2**16, dtype=np.uint16)


def test_every_value_is_a_float32_and_comes_back() -> None:
    values = bfloat16.from_bits(BITS)
    is_number = ~np.isnan(values)
    np.testing.assert_array_equal(bfloat16.to_bits(values)[is_number], BITS[is_number])
    np.testing.assert_array_equal(bfloat16.rounded(values), values)


def test_numbers_are_rounded_as_torch_rounds_them() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    numbers = bits.view(np.float32).reshape(-1, 4)
    expected = torch.from_numpy(numbers).bfloat16().float().numpy()
    np.testing.assert_array_equal(bfloat16.rounded(numbers), expected)
    assert bfloat16.rounded(np.array(0.1)).shape == ()


COLUMNS = (
    Feature("rate", column=0, tensor="x", minimum=0, maximum=0.3),
    Feature("count", kind="integer", column=1, tensor="x"),
)
SPEC = TensorSpec("x", "BF16", (-1, 2))


def test_a_column_of_bf16_holds_what_it_can() -> None:
    encoder = FeatureEncoder(COLUMNS, (SPEC,))
    rows = encoder.encode({"rate": 0.3, "count": 256})
    assert rows["x"].tolist() == [[0.30078125, 256]]
    assert rows["x"].dtype == np.float32
    assert encoder.out_of_range(rows) == {}  # the bound is rounded as the value is


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("count", 257, "must be at most 256 in magnitude, beyond which the model's BF16 holds no"),
        ("rate", 3.39617745e38, "must be finite as a bfloat16 (less than 3.3961774e38"),
    ],
)
def test_what_a_column_of_bf16_cannot_hold_is_refused(name: str, value: float, said: str) -> None:
    columns = TensorColumns(SPEC, COLUMNS)
    index = [feature.name for feature in COLUMNS].index(name)
    assert (columns.problem(index, value) or "").startswith(said)
    assert columns.array([value, 1] if index == 0 else [0, value]) is None


def test_the_largest_number_of_a_column_stays_finite() -> None:
    columns = TensorColumns(SPEC, COLUMNS)
    array = columns.array([np.nextafter(float(2**128 - 2**119 - 2**103), 0).item(), 0])
    assert array is not None
    assert np.isfinite(array).all()
