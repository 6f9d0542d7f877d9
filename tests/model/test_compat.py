"""What a new version changes for callers of the old one."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from app.model.compat import breaking_changes, harmless_changes, shadow_obstacle
from app.model.features import Feature
from app.model.manifest import Manifest, Target, TaskName
from app.model.signature import OutputSpec, Role, TensorSpec
from app.model.steps.declaration import Size
from tests.step_models import PHOTO, PIXELS, SENTENCE, TOKENS

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
            new(INCOME, AGE),
            [
                "The columns of the input 'features' moved (column 0 was 'age' and is 'income', "
                "column 1 was 'income' and is 'age'): callers who send it whole (Open Inference "
                "Protocol) would be answered wrongly, those who send features by name are not "
                "affected."
            ],
        ),
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


CITY = Feature("city", kind="category", tensor="texts", column=0, categories=("Oslo", "Rome"))
PLAN = Feature("plan", kind="category", tensor="codes", column=0, categories=("free", "pro"))
VISITS = Feature("visits", kind="integer", tensor="codes", column=1)
KINDS = (TensorSpec("texts", "BYTES", (-1, 1)), TensorSpec("codes", "INT64", (-1, 2)))


def answering(
    task: TaskName, role: Role, columns: int, *, features: tuple[Feature, ...], **more: object
) -> Manifest:
    given = {"inputs": KINDS, "outputs": (OutputSpec("graph's own", "FP32", (-1, columns), role),)}
    return Manifest("m", "1", features, task=task, batch=True, **(given | more))  # type: ignore[arg-type]


def of_kinds(*features: Feature, **more: object) -> Manifest:
    return answering(
        "regression",
        "values",
        1,
        features=features or (CITY, PLAN, VISITS),
        **({"targets": (Target("price", "EUR"),)} | more),
    )


MISREAD = (
    "callers who send it whole (Open Inference Protocol) would be answered wrongly, those who send "
    "features by name are not affected."
)
WHOLE = "callers who send it whole must follow, those who send features by name need not."


@pytest.mark.parametrize(
    ("changed", "breaking", "harmless"),
    [
        (of_kinds(), [], []),
        (
            of_kinds(replace(CITY, categories=("Oslo",)), PLAN, VISITS),
            ["The feature 'city' no longer accepts 'Rome'."],
            [],
        ),
        (
            of_kinds(replace(CITY, categories=("Bern", "Oslo", "Rome")), PLAN, VISITS),
            [],
            ["The feature 'city' now accepts 'Bern'."],
        ),
        (
            of_kinds(replace(CITY, unknown="pass", categories=()), PLAN, VISITS),
            [],
            ["The feature 'city' now accepts unknown values."],
        ),
        (
            of_kinds(CITY, replace(PLAN, categories=("pro", "free")), VISITS),
            [
                "The codes in the input 'codes' changed (0 of 'plan' was 'free' and is 'pro', 1 of "
                f"'plan' was 'pro' and is 'free'): {MISREAD}"
            ],
            [],
        ),
        (
            of_kinds(CITY, replace(PLAN, categories=("trial", "free", "pro")), VISITS),
            [
                "The codes in the input 'codes' changed (0 of 'plan' was 'free' and is 'trial', 1 "
                f"of 'plan' was 'pro' and is 'free'): {MISREAD}"
            ],
            [],
        ),
        (
            of_kinds(CITY, replace(PLAN, categories=("free", "pro", "trial")), VISITS),
            [],
            ["The feature 'plan' now accepts 'trial'."],
        ),
        (
            of_kinds(CITY, replace(PLAN, column=1), replace(VISITS, column=0)),
            [
                "The columns of the input 'codes' moved (column 0 was 'plan' and is 'visits', "
                f"column 1 was 'visits' and is 'plan'): {MISREAD}"
            ],
            [],
        ),
        (of_kinds(replace(CITY, categories=("Rome", "Oslo")), PLAN, VISITS), [], []),
        (of_kinds(VISITS, PLAN, CITY), [], ["The features are in another order."]),
        (
            of_kinds(inputs=(KINDS[0], replace(KINDS[1], datatype="FP32"))),
            [],
            [
                "The input 'codes' is FP32 of shape [-1, 2], and was INT64 of shape [-1, 2]: "
                f"{WHOLE}"
            ],
        ),
        (
            of_kinds(CITY, PLAN, replace(VISITS, kind="number")),
            [],
            ["The feature 'visits' is now a number, and was an integer."],
        ),
        (
            of_kinds(CITY, replace(PLAN, kind="integer", categories=()), VISITS),
            ["The feature 'plan' is now an integer, and was a category."],
            [],
        ),
        (
            of_kinds(CITY, PLAN, replace(VISITS, kind="boolean")),
            ["The feature 'visits' is now true or false, and was an integer."],
            [],
        ),
        (
            of_kinds(targets=(Target("cost", "EUR"),)),
            ["The target 'price' is now called 'cost'."],
            [],
        ),
        (
            of_kinds(targets=(Target("price", "USD"),)),
            ["The unit of 'price' changes from 'EUR' to 'USD'."],
            [],
        ),
        (of_kinds(targets=(Target("price"),)), [], ["The target 'price' no longer has a unit."]),
        (
            of_kinds(targets=(Target("price", "EUR", "What it costs"),)),
            [],
            ["The target 'price' has another description."],
        ),
        (
            of_kinds(
                targets=(Target("price", "EUR"), Target("rent")),
                outputs=(OutputSpec("graph's own", "FP32", (-1, 2), "values"),),
            ),
            ["The targets change from 'price' to 'price', 'rent'."],
            [],
        ),
        (
            of_kinds(outputs=(OutputSpec("another name", "FP32", (-1, 1), "values"),)),
            [],
            [],
        ),
        (
            of_kinds(outputs=(OutputSpec("graph's own", "FP64", (-1, 1), "values"),)),
            ["The output 'values' is FP64 of shape [-1, 1], and was FP32 of shape [-1, 1]."],
            [],
        ),
        (
            of_kinds(
                outputs=(
                    OutputSpec("graph's own", "FP32", (-1, 1), "values"),
                    OutputSpec("spread", "FP32", (-1, 1)),
                )
            ),
            [],
            ["The output 'spread' is new."],
        ),
    ],
)
def test_kinds_targets_and_outputs_are_compared(
    changed: Manifest, breaking: list[str], harmless: list[str]
) -> None:
    assert breaking_changes(of_kinds(), changed) == breaking
    if not breaking:
        assert harmless_changes(of_kinds(), changed) == harmless


def test_what_an_unknown_value_may_be_narrows() -> None:
    passing = of_kinds(replace(CITY, unknown="pass"), PLAN, VISITS)
    assert breaking_changes(passing, of_kinds()) == [
        "The feature 'city' no longer accepts unknown values."
    ]
    knowing = of_kinds(replace(CITY, unknown="pass", categories=("Oslo",)), PLAN, VISITS)
    assert breaking_changes(passing, knowing) == []


def test_another_value_for_null_is_told() -> None:
    floor = replace(VISITS, nullable=True, null_as=-1)
    before, after = (
        of_kinds(CITY, PLAN, replace(floor, null_as=value), inputs=KINDS) for value in (-1, -9)
    )
    assert breaking_changes(before, after) == [
        "The codes in the input 'codes' changed (null of 'visits' was -1 and is -9): " + MISREAD
    ]
    assert harmless_changes(before, after) == []


def test_features_that_change_places_between_tensors_are_told_of_each() -> None:
    first, second = (TensorSpec(name, "FP32", (-1,)) for name in "ab")
    one, other = Feature("x", tensor="a"), Feature("y", tensor="b")
    before = of_kinds(one, other, inputs=(first, second))
    after = of_kinds(replace(one, tensor="b"), replace(other, tensor="a"), inputs=(first, second))
    assert breaking_changes(before, after) == [
        f"The columns of the input 'a' moved (column 0 was 'x' and is 'y'): {MISREAD}",
        f"The columns of the input 'b' moved (column 0 was 'y' and is 'x'): {MISREAD}",
    ]


def test_a_narrower_number_is_told() -> None:
    number = of_kinds(CITY, PLAN, replace(VISITS, kind="number"))
    assert breaking_changes(number, of_kinds()) == [
        "The feature 'visits' is now an integer, and was a number."
    ]


def test_scores_in_the_place_of_probabilities_are_told_once() -> None:
    both = [
        answering("classification", role, 2, features=(CITY, PLAN, VISITS), classes=("no", "yes"))
        for role in ("probabilities", "scores")
    ]
    assert breaking_changes(*both) == ["It answers scores, and answered probabilities."]
    assert breaking_changes(*both[::-1]) == ["It answers probabilities, and answered scores."]


def test_labels_are_read_by_position_as_classes_are() -> None:
    def labelled(*labels: str) -> Manifest:
        return answering(
            "multilabel",
            "probabilities",
            len(labels),
            features=(CITY, PLAN, VISITS),
            labels=labels,
        )

    assert breaking_changes(labelled("a", "b"), labelled("b", "a")) == [
        "The labels are in another order: class_0 was 'a' and is 'b', class_1 was 'b' and is 'a'."
    ]
    assert breaking_changes(labelled("a", "b"), labelled("a", "b", "c")) == [
        "The labels change from 'a', 'b' to 'a', 'b', 'c'."
    ]


def test_features_that_are_gone_or_new_are_told_from_tensors() -> None:
    bare = answering("embedding", "embedding", 8, features=())
    featured = answering("embedding", "embedding", 8, features=(CITY, PLAN, VISITS))
    assert breaking_changes(featured, bare) == ["It takes tensors only, and callers send features."]
    assert breaking_changes(bare, featured) == ['The output "graph\'s own" is removed.']
    named = answering(
        "embedding",
        "embedding",
        8,
        features=(),
        outputs=(OutputSpec("embedding", "FP32", (-1, 8), "embedding"),),
    )
    assert breaking_changes(named, featured) == []
    assert breaking_changes(
        bare, replace(bare, outputs=(OutputSpec("graph's own", "FP32", (-1, 4), "embedding"),))
    ) == ['The output "graph\'s own" is FP32 of shape [-1, 4], and was FP32 of shape [-1, 8].']
    assert shadow_obstacle(featured) == ""
    assert "use a canary" in shadow_obstacle(bare)


def test_a_model_of_images_may_take_other_tensors_but_no_other_members() -> None:
    answer = OutputSpec("p", "FP32", (-1, 2), "probabilities")
    photos = Manifest(
        *("m", "1"), inputs=(PIXELS,), outputs=(answer,), steps=(PHOTO,), classes=("a", "b")
    )
    larger = replace(PIXELS, shape=(-1, 3, 32, 32))
    resized = replace(photos, inputs=(larger,), steps=(replace(PHOTO, crop=Size(32, 32)),))
    assert breaking_changes(photos, resized) == []
    assert harmless_changes(photos, resized) == [
        "The image step has another crop.",
        "The input 'pixels' is FP32 of shape [-1, 3, 32, 32], and was FP32 of shape "
        "[-1, 3, 16, 16]: callers who send it whole must follow, those who send images or texts "
        "need not.",
    ]
    both = replace(photos, inputs=(PIXELS, *TOKENS), steps=(PHOTO, SENTENCE))
    assert breaking_changes(photos, both) == [
        "Each image needs one text more, and no caller sends it yet."
    ]
    assert breaking_changes(both, photos) == ["It takes no text, and callers send one."]
    assert shadow_obstacle(photos) == ""
