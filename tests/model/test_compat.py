"""What a new version changes for callers of the old one."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from app.model.compat import breaking_changes, harmless_changes
from app.model.features import Feature
from app.model.manifest import Manifest
from app.model.signature import OutputSpec, TensorSpec

AGE = Feature("age", "Age", "years", 18, 90, example=40)
INCOME = Feature("income", "Income", "a year", 0, 9e4, nullable=True)
OLD = Manifest.of_classifier("m", "1", (AGE, INCOME), ("no", "yes"))


def new(*features: Feature, classes: tuple[str, ...] = ("no", "yes")) -> Manifest:
    return Manifest.of_classifier("m", "2", features or (AGE, INCOME), classes)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (new(AGE), ["The feature 'income' is removed."]),
        (
            new(AGE, INCOME, Feature("visits")),
            ["The feature 'visits' is new, so callers don't send it yet."],
        ),
        (new(AGE, replace(INCOME, name="wage")), ["The feature 'income' is now called 'wage'."]),
        (
            new(AGE, Feature("incomes", "In words of its own")),
            ["The feature 'income' is now called 'incomes'."],
        ),
        (
            new(AGE, Feature("visits")),
            [
                "The feature 'income' is removed.",
                "The feature 'visits' is new, so callers don't send it yet.",
            ],
        ),
        (
            new(AGE, replace(INCOME, nullable=False)),
            ["The feature 'income' no longer accepts null."],
        ),
        (
            new(replace(AGE, unit="months"), INCOME),
            ["The unit of 'age' changes from 'years' to 'months'."],
        ),
        (
            new(classes=("yes", "no")),
            [
                "The classes are in another order: "
                "class_0 was 'no' and is 'yes', class_1 was 'yes' and is 'no'."
            ],
        ),
        (
            new(classes=("no", "yes", "maybe")),
            ["The classes change from 'no', 'yes' to 'no', 'yes', 'maybe'."],
        ),
        (new(classes=("no", "Yes")), ["The classes change from 'no', 'yes' to 'no', 'Yes'."]),
        (
            new(AGE, classes=("no", "Yes")),
            [
                "The feature 'income' is removed.",
                "The classes change from 'no', 'yes' to 'no', 'Yes'.",
            ],
        ),
    ],
)
def test_what_breaks_callers_is_told_in_sentences(changed: Manifest, said: list[str]) -> None:
    assert breaking_changes(OLD, changed) == said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (new(), []),
        (
            new(INCOME, AGE),
            [
                "The columns of the input 'features' are in another order: callers who send it "
                "whole must follow, those who send features by name need not."
            ],
        ),
        (new(replace(AGE, nullable=True), INCOME), ["The feature 'age' now accepts null."]),
        (
            new(replace(AGE, minimum=None, maximum=120), INCOME),
            ["The range of 'age' is now … to 120; it was 18 to 90."],
        ),
        (
            new(replace(AGE, description="Years"), INCOME),
            ["The feature 'age' has another description."],
        ),
        (new(replace(AGE, unit=""), INCOME), ["The feature 'age' no longer has a unit."]),
        (new(replace(AGE, example=41), INCOME), []),
        (replace(new(), training={"roc_auc": 0.9}, description="x", name="n"), []),
    ],
)
def test_what_breaks_nobody_is_not_held_against_a_version(
    changed: Manifest, said: list[str]
) -> None:
    assert breaking_changes(OLD, changed) == []
    assert harmless_changes(OLD, changed) == said


def test_a_feature_that_gets_a_unit_where_it_had_none_breaks_nobody() -> None:
    before = Manifest.of_classifier("m", "1", (Feature("age"),), ("no", "yes"))
    after = Manifest.of_classifier("m", "2", (Feature("age", unit="years"),), ("no", "yes"))
    assert breaking_changes(before, after) == []
    assert harmless_changes(before, after) == ["The feature 'age' now has a unit."]


IDS, MASK = TensorSpec("ids", "INT64", (-1, -1)), TensorSpec("mask", "BOOL", (-1, 8))
FOUND = OutputSpec("found", "FP32", (-1, 4))
TENSORS = Manifest("m", "1", task="tensors", inputs=(IDS, MASK), outputs=(FOUND,))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (replace(TENSORS, inputs=(MASK, IDS)), []),
        (replace(TENSORS, inputs=(IDS,)), ["The input 'mask' is removed."]),
        (
            replace(TENSORS, inputs=(IDS, MASK, TensorSpec("more", "FP32", ()))),
            ["The input 'more' is new, and no caller sends it yet."],
        ),
        (
            replace(TENSORS, inputs=(replace(IDS, shape=(-1, 16)), MASK)),
            ["The input 'ids' is INT64 of shape [-1, 16], and was INT64 of shape [-1, -1]."],
        ),
        (
            replace(TENSORS, inputs=(replace(IDS, datatype="INT32"), MASK)),
            ["The input 'ids' is INT32 of shape [-1, -1], and was INT64 of shape [-1, -1]."],
        ),
        (
            replace(TENSORS, outputs=(replace(FOUND, shape=(-1, -1)),)),
            ["The output 'found' is FP32 of shape [-1, -1], and was FP32 of shape [-1, 4]."],
        ),
        (
            replace(TENSORS, outputs=(replace(FOUND, role="state"),)),
            ["The output 'found' has the role 'state', and had 'tensor'."],
        ),
        (replace(TENSORS, outputs=()), ["The output 'found' is removed."]),
        (OLD, ["The task is 'classification', and was 'tensors'."]),
    ],
)
def test_a_narrower_signature_breaks_callers(changed: Manifest, said: list[str]) -> None:
    assert breaking_changes(TENSORS, changed) == said


def test_a_wider_signature_breaks_no_caller() -> None:
    more = OutputSpec("more", "FP32", ())
    wider = replace(
        TENSORS,
        inputs=(IDS, replace(MASK, shape=(-1, -1))),
        outputs=(replace(FOUND, shape=(1, 4)), more),
    )
    assert breaking_changes(TENSORS, wider) == []
    assert harmless_changes(TENSORS, wider) == [
        "The input 'mask' is BOOL of shape [-1, -1], and was BOOL of shape [-1, 8].",
        "The output 'found' is FP32 of shape [1, 4], and was FP32 of shape [-1, 4].",
        "The output 'more' is new.",
    ]
