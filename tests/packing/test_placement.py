"""Where features are among the inputs: said, or the only way there is."""

from __future__ import annotations

from typing import Any

import pytest

from app.model.errors import BundleError
from app.model.features import Feature
from app.model.signature import TensorSpec
from app.packing.description import ModelDescription
from app.packing.placement import placed

MATRIX = TensorSpec("X", "FP32", (-1, 3))
CODES, NUMBERS = TensorSpec("codes", "INT64", (-1, 2)), TensorSpec("numbers", "FP32", (-1, 1))
COLUMNS = [TensorSpec(name, "FP32", (-1, 1)) for name in "ab"]


def features(*names: str, **members: Any) -> list[Feature]:
    return [Feature(name, **members) for name in names]


def place(given: list[Feature], *inputs: TensorSpec) -> list[tuple[str, str, int | None, str]]:
    stated = ModelDescription(tuple(given)).stated_of_each()
    found, _ = placed(given, stated, inputs)
    return [(each.name, each.tensor, each.column, each.kind) for each in found]


def refusal(given: list[Feature], *inputs: TensorSpec) -> str:
    with pytest.raises(BundleError) as error:
        place(given, *inputs)
    return str(error.value)


def test_the_columns_of_one_matrix_are_the_features_in_their_order() -> None:
    assert place(features(*"abc"), MATRIX) == [
        ("a", "X", 0, "number"),
        ("b", "X", 1, "number"),
        ("c", "X", 2, "number"),
    ]
    assert "has 3 columns, but the features file describes 2" in refusal(features(*"ab"), MATRIX)


def test_inputs_of_one_column_are_the_features_by_their_names() -> None:
    assert place(features(*"ba"), *COLUMNS) == [
        ("b", "b", None, "number"),
        ("a", "a", None, "number"),
    ]
    said = refusal(features("a", "x"), *COLUMNS)
    assert "no feature is called b; no input is called x" in said


def test_of_several_matrices_the_features_say_which_they_are_in() -> None:
    said = refusal(features(*"abc"), CODES, NUMBERS)
    assert "codes [-1, 2], numbers [-1, 1]" in said
    assert 'add tensor = "codes"' in said
    given = [*features("n", tensor="numbers"), *features("p", "q", tensor="codes")]
    assert place(given, CODES, NUMBERS) == [
        ("n", "numbers", None, "number"),
        ("p", "codes", 0, "integer"),
        ("q", "codes", 1, "integer"),
    ]
    assert "tensor is missing" in refusal([*given[:2], Feature("q")], CODES, NUMBERS)
    assert "'cods' is not an input" in refusal(
        [given[0], *features("p", "q", tensor="cods")], CODES, NUMBERS
    )


def test_kinds_follow_from_datatypes_unless_they_are_said() -> None:
    flags = TensorSpec("flags", "BOOL", (-1, 1))
    assert place(features("f"), flags) == [("f", "flags", 0, "boolean")]
    plan = Feature("plan", categories=("basic", "plus"))
    assert place([plan], TensorSpec("c", "INT64", (-1, 1))) == [("plan", "c", 0, "category")]


def test_strings_are_never_taken_for_anything() -> None:
    text = TensorSpec("city", "BYTES", (-1, 1))
    said = refusal(features("city"), text)
    assert 'categories = ["...", ...], or unknown = "pass"' in said
    for given in (Feature("city", unknown="pass"), Feature("city", categories=("Bonn",))):
        assert place([given], text) == [("city", "city", 0, "category")]


def test_an_input_without_columns_has_no_features() -> None:
    said = refusal(features("a"), TensorSpec("image", "FP32", (-1, 3, 8, 8)))
    assert "has no columns to be features" in said
    assert "give samples as a .npz or .json" in said
