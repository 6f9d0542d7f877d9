"""Versions of any task are compared by what they decide, on rows of any tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from app.inference.comparison import ShadowResult, compare, rows_for
from app.inference.sample import Pair, Sample
from app.inference.shadow import Shadow
from app.model.agreement import Incomparable
from app.model.bundle import Bundle
from app.model.errors import InvalidFeatures
from app.model.features import Feature
from app.model.manifest import Manifest, Target, Tolerance
from app.model.model import Model
from app.model.signature import FEATURES, OutputSpec, Tensors, TensorSpec
from app.registry.loading import ModelSource, load_model
from tests import task_models
from tests.inference.test_shadow import Recorder

AGE = Feature("age", column=0)
ROWS = {FEATURES: np.array([[1], [2], [3]], dtype=np.float32)}


class Saying:
    """A runtime that returns the same outputs for any rows."""

    name = device = "cpu"

    def __init__(self, **outputs: Any) -> None:
        self.outputs = outputs

    def run(self, inputs: Tensors) -> Tensors:
        return self.outputs


def saying(manifest: Manifest, **outputs: Any) -> Model:
    return Model(Bundle(manifest, None, None), Saying(**outputs), "")


def classifier(*classes: str) -> Manifest:
    """A classifier whose network says the class itself."""
    manifest = Manifest.of_classifier("m", "1", (AGE,), classes)
    label = OutputSpec("label", "INT64", (-1,), "label")
    return replace(manifest, outputs=(*manifest.outputs, label))


def of_task(task: Any, output: OutputSpec, **more: Any) -> Manifest:
    return Manifest(
        *("m", "1", (AGE,)),
        task=task,
        inputs=(TensorSpec(FEATURES, "FP32", (-1, 1)),),
        outputs=(output,),
        batch=True,
        **more,
    )


PROBABILITIES = np.array([[0.6, 0.3, 0.1]] * 3, dtype=np.float32)


def test_the_decided_classes_are_compared_which_may_not_be_the_most_probable() -> None:
    stable = saying(
        classifier("a", "b", "c"), probabilities=PROBABILITIES, label=np.array([1, 1, 0])
    )
    candidate = saying(
        classifier("a", "b", "c"), probabilities=PROBABILITIES, label=np.array([1, 0, 0])
    )
    told = compare(stable, candidate, ROWS, stable.predict_batch(ROWS).comparable())
    assert told == ShadowResult(agreed=2, compared=3)


def test_a_decided_class_is_matched_by_name_and_not_by_its_index() -> None:
    stable = saying(
        classifier("a", "b", "c"), probabilities=PROBABILITIES, label=np.array([1, 1, 0])
    )
    candidate = saying(
        classifier("b", "c", "a"),
        probabilities=PROBABILITIES[:, [1, 2, 0]],
        label=np.array([0, 0, 2]),
    )
    told = compare(stable, candidate, ROWS, stable.predict_batch(ROWS).comparable())
    assert told == ShadowResult(agreed=3, compared=3)


def test_a_row_alone_is_compared_as_in_a_batch() -> None:
    labels = of_task(
        "multilabel",
        OutputSpec("probabilities", "FP32", (-1, 2), "probabilities"),
        labels=("x", "y"),
    )
    values = of_task(
        "regression",
        OutputSpec("values", "FP64", (-1, 2), "values"),
        targets=(Target("x"), Target("y")),
    )
    vector = of_task("embedding", OutputSpec("embedding", "FP32", (-1, 2), "embedding"))
    two = np.array([[0.7, 0.2]])
    for model in (
        saying(classifier("a", "b", "c"), probabilities=PROBABILITIES[:1], label=np.array([1])),
        saying(labels, probabilities=two.astype(np.float32)),
        saying(values, values=two),
        saying(vector, embedding=two.astype(np.float32)),
    ):
        row = {FEATURES: ROWS[FEATURES][:1]}
        alone, batch = model.predict(row).comparable(), model.predict_batch(row).comparable()
        assert alone.keys() == batch.keys()
        for name, array in alone.items():
            assert array.shape == batch[name].shape
            assert np.array_equal(array.astype(batch[name].dtype), batch[name])


def test_labels_agree_where_the_same_ones_apply() -> None:
    def answering(labels: tuple[str, ...], probabilities: list[list[float]]) -> Model:
        spec = OutputSpec("probabilities", "FP32", (-1, 2), "probabilities")
        manifest = of_task("multilabel", spec, labels=labels)
        return saying(manifest, probabilities=np.array(probabilities, dtype=np.float32))

    stable = answering(("x", "y"), [[0.75, 0.25], [0.75, 0.75], [0.25, 0.25]])
    candidate = answering(("y", "x"), [[0.25, 0.75], [0.25, 0.75], [0.25, 0.25]])
    told = compare(stable, candidate, ROWS, stable.predict_batch(ROWS).comparable())
    assert told == ShadowResult(agreed=2, compared=3, difference=0.25)


def test_numbers_agree_within_the_tolerance_and_targets_by_name() -> None:
    def answering(targets: tuple[str, ...], values: list[list[float]]) -> Model:
        manifest = of_task(
            "regression",
            OutputSpec("values", "FP64", (-1, 2), "values"),
            targets=tuple(map(Target, targets)),
            tolerances={"values": Tolerance(relative=0.01, absolute=0)},
        )
        return saying(manifest, values=np.array(values))

    stable = answering(("x", "y"), [[100, 1], [100, 1], [100, 1]])
    candidate = answering(("y", "x"), [[1, 100.5], [1, 102], [1, float("nan")]])
    told = compare(stable, candidate, ROWS, stable.predict_batch(ROWS).comparable())
    assert (told.agreed, told.compared, told.failed) == (1, 2, 1)
    assert told.difference == pytest.approx((0.5 + 2) / 2)


def test_arrays_of_other_shapes_are_not_compared() -> None:
    def answering(size: int) -> Model:
        spec = OutputSpec("embedding", "FP32", (-1, -1), "embedding")
        return saying(of_task("embedding", spec), embedding=np.ones((3, size), dtype=np.float32))

    stable = answering(4)
    with pytest.raises(Incomparable, match="different shapes"):
        compare(stable, answering(5), ROWS, stable.predict_batch(ROWS).comparable())


@pytest.fixture
def mixed(tmp_path: Path) -> Model:
    """A model of strings, codes, integers and booleans in several tensors."""
    return load_model(ModelSource(task_models.mixed(tmp_path / "mixed" / "1")))


def samples(count: int) -> list[dict[str, Any]]:
    cities, plans = task_models.CITIES, task_models.PLANS
    return [
        task_models.MIXED_SAMPLE
        | {"city": cities[i % 3], "plan": plans[i % 2], "visits": i % 5, "comment": f"no {i}"}
        for i in range(count)
    ]


def test_rows_of_several_tensors_are_shadowed(mixed: Model) -> None:
    found = Recorder()
    shadow = Shadow(found)
    rows = mixed.encoder.encode_batch(samples(50))
    other = Model(mixed._bundle, mixed.runtime, "")
    shadow.offer(mixed, other, rows, mixed.predict_batch(rows))
    one = mixed.encoder.encode(samples(1)[0])
    for _ in range(7):
        shadow.offer(mixed, other, one, mixed.predict(one))
    assert shadow.wait(60)
    assert found.total.dropped == found.total.failed == 0
    assert (found.total.agreed, found.total.compared) == (57, 57)
    assert found.total.difference == pytest.approx(0, abs=1e-4)


def test_codes_are_matched_by_what_they_stand_for(mixed: Model) -> None:
    """The columns are the same; only the order of the categories is another."""

    def changed(name: str, **more: Any) -> Model:
        features = [
            replace(feature, **more) if feature.name == name else feature
            for feature in mixed.manifest.features
        ]
        return Model(
            Bundle(replace(mixed.manifest, features=tuple(features)), None, None), mixed.runtime, ""
        )

    rows = mixed.encoder.encode_batch(samples(4))
    assert rows_for(mixed, changed("age", description="Other"), rows) is rows
    moved = rows_for(mixed, changed("plan", categories=task_models.PLANS[::-1]), rows)
    assert rows["codes"][:, 0].tolist() == [0, 1, 0, 1]
    assert moved["codes"][:, 0].tolist() == [2, 1, 2, 1]
    assert moved["texts"].tolist() == rows["texts"].tolist()
    with pytest.raises(InvalidFeatures):
        rows_for(mixed, changed("city", categories=("Oslo",)), rows)


def test_strings_that_wait_count_as_the_memory_that_they_take(
    mixed: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.inference.sample.MAX_BYTES", 300_000)
    sample, pair = Sample(10**9, np.random.default_rng(1)), Pair.of(mixed, mixed)
    texts = [sample | {"comment": f"{i}" * 1000} for i, sample in enumerate(samples(100), 1)]
    rows = mixed.encoder.encode_batch(texts)
    answers = mixed.predict_batch(rows).comparable()
    for _ in range(20):
        sample.add(pair, rows, answers)
        kept = [text for each in sample.blocks for text in each.rows["texts"].reshape(-1)]
        assert sum(map(len, kept)) <= 300_000
    assert sample.rows > 0
    assert sample.rows + sample.dropped[pair] == 2000


def test_a_row_that_is_not_kept_is_not_made_comparable(mixed: Model) -> None:
    """A busy worker drops nearly all rows: nothing may be built for them."""
    shadow = Shadow(Recorder())
    row = mixed.encoder.encode(task_models.MIXED_SAMPLE)
    prediction = mixed.predict(row)
    shadow._sample = Sample(64, np.random.default_rng(1), share=1e-9)

    class Untouched:
        def comparable(self) -> Tensors:
            pytest.fail("it was made comparable")

    for _ in range(100):
        shadow.offer(mixed, mixed, row, Untouched())  # type: ignore[arg-type]
    assert prediction.comparable().keys() == {"values", "decided"}
    shadow.stop(60)
