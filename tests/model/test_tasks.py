"""Tasks: what the outputs of a network say, of one row and of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model.batching import BatchingRuntime
from app.model.errors import BundleError, InputsRejected, NonFiniteOutput
from app.model.manifest import Manifest
from app.model.model import Model
from app.model.predictions import ValuesPrediction
from app.model.signature import OutputSpec, Tensors
from app.model.tasks import Task, task_of
from app.registry.loading import ModelSource, load_model
from tests import task_models
from tests.model.test_cache import Counting
from tests.model.test_manifest import CLASSIFIER, EACH, EMBEDDING, MULTILABEL, REGRESSION, TENSORS
from tests.tensor_graphs import pack_every_kind

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCORES = Manifest(
    "m",
    "1",
    CLASSIFIER.features,
    ("a", "b", "c"),
    inputs=CLASSIFIER.inputs,
    outputs=(OutputSpec("own scores", "FP64", (-1, 3), "scores"),),
    batch=True,
)
ANSWERING = [CLASSIFIER, SCORES, MULTILABEL, REGRESSION, EMBEDDING]


def outputs_of(manifest: Manifest, answers: Any, labels: Any = None) -> Tensors:
    """Return outputs of a network of ``manifest``, its answer and label as given."""
    rows = len(answers)
    found: dict[str, Any] = {}
    for spec in manifest.outputs:
        shape = (rows, *spec.shape[1:])
        found[spec.name] = np.zeros(shape, dtype=np.float32)
        if spec.role == "label":
            found[spec.name] = np.zeros(shape, dtype=np.int64) if labels is None else labels
    found[manifest.outputs[0].name] = np.asarray(answers)
    return found


def row_of(outputs: Tensors, index: int) -> Tensors:
    return {name: array[index : index + 1] for name, array in outputs.items()}


@pytest.mark.parametrize("manifest", ANSWERING, ids=lambda m: f"{m.task}-{m.outputs[0].role}")
@given(data=st.data())
def test_a_row_is_decided_alone_as_it_is_among_others(
    manifest: Manifest, data: st.DataObject
) -> None:
    task, spec = task_of(manifest), manifest.outputs[0]
    rows, columns = data.draw(st.integers(1, 5)), spec.shape[1]
    bound = 1.7e308 if spec.datatype == "FP64" else 3e38
    value = st.floats(0, 1, width=32) if spec.role == "probabilities" else st.floats(-bound, bound)
    drawn = data.draw(st.lists(value, min_size=rows * columns, max_size=rows * columns))
    dtype = np.float64 if spec.datatype == "FP64" else np.float32
    answers = np.array(drawn, dtype=dtype).reshape(rows, columns)
    random = np.random.default_rng(rows)
    size = (rows,) if manifest.task == "classification" else (rows, columns)
    outputs = outputs_of(manifest, answers, random.integers(0, 2, size))

    batch = task.batch(outputs, "1", NOW)
    alone = [task.prediction(task.decide(row_of(outputs, i)), "1", NOW, None) for i in range(rows)]
    assert len(batch) == rows
    for one, other in zip(batch, alone, strict=True):
        assert type(one) is type(other)
        for field in one.__struct_fields__:
            ours, theirs = getattr(one, field), getattr(other, field)
            np.testing.assert_array_equal(ours, theirs)
    for start, end in ((0, rows), (1, rows + 5), (rows, rows)):
        some, same = batch.rows(start, end), alone[start:end]
        np.testing.assert_array_equal([p.values for p in some], [p.values for p in same])
        assert [p.log_fields(9) for p in some] == [p.log_fields(9) for p in same]
        np.testing.assert_array_equal(some.outputs[spec.name], answers[start:end])
    counts = sum((Counter(prediction.label_counts()) for prediction in alone), Counter())
    assert batch.label_counts() == counts
    assert task.answers(outputs) is outputs[spec.name]
    if manifest.task == "classification":
        labels = [prediction.label for prediction in alone]  # type: ignore[attr-defined]
        assert batch.label_counts() == {name: labels.count(name) for name in sorted({*labels})}


@pytest.mark.parametrize("manifest", ANSWERING, ids=lambda m: f"{m.task}-{m.outputs[0].role}")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_named(manifest: Manifest, value: float) -> None:
    task, columns = task_of(manifest), manifest.outputs[0].shape[1]
    answers = np.full((5, columns), 0.5)
    answers[1, 0] = answers[3, -1] = value
    outputs = outputs_of(manifest, answers)
    with pytest.raises(NonFiniteOutput) as refusal:
        task.batch(outputs, "1", NOW)
    assert refusal.value.rows == (1, 3)
    for row in (1, 3):
        with pytest.raises(NonFiniteOutput):
            task.decide(row_of(outputs, row))
    task.decide(row_of(outputs, 2))


@pytest.mark.parametrize(
    ("manifest", "answer", "logged"),
    [
        (CLASSIFIER, [0.75, 0.25], {"prediction": "no", "confidence": 0.75}),
        (SCORES, [-1, 3, 2], {"prediction": "b"}),
        (MULTILABEL, [0.9, 0.8], {"prediction": ["large", "airy"]}),
        (REGRESSION, [0.1], {"prediction": 0.1}),
        (EMBEDDING, [0.5] * 8, {"prediction": None}),
    ],
    ids=lambda value: value.task if isinstance(value, Manifest) else "",
)
def test_the_log_says_of_each_prediction_what_it_is(
    manifest: Manifest, answer: list[float], logged: dict[str, Any]
) -> None:
    task = task_of(manifest)
    answers = np.array([answer], dtype=np.float32)
    label = np.ones((1, 2), np.int64) if manifest is MULTILABEL else np.zeros(1, np.int64)
    outputs = outputs_of(manifest, answers, label)
    assert task.prediction(task.decide(outputs), "1", NOW, None).log_fields(2) == logged


def test_the_log_says_some_of_many_labels_or_numbers() -> None:
    task = task_of(MULTILABEL)
    outputs = outputs_of(MULTILABEL, np.ones((1, 2)), np.ones((1, 2), np.int64))
    prediction = task.prediction(task.decide(outputs), "1", NOW, None)
    assert prediction.log_fields(1) == {"prediction": ["large"]}
    many = ValuesPrediction(
        values=(0.5, 1.5, 2.5), targets=("a", "b", "c"), model_version="1", timestamp=NOW
    )
    assert many.log_fields(2) == {"prediction": [0.5, 1.5]}


def test_finite_scores_whose_sum_is_not_are_answered() -> None:
    outputs = outputs_of(SCORES, np.array([[1.7e308, 1.7e308, -1.0]]))
    assert task_of(SCORES).decide(outputs) == (0, (1.7e308, 1.7e308, -1.0))


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_that_is_none_of_the_classes_is_refused(label: int) -> None:
    task = task_of(CLASSIFIER)
    outputs = outputs_of(CLASSIFIER, np.full((2, 2), 0.5), np.array([0, label]))
    with pytest.raises(InputsRejected, match="its label is none of the classes"):
        task.batch(outputs, "1", NOW)
    with pytest.raises(InputsRejected, match="its label is none of the classes"):
        task.decide(row_of(outputs, 1))
    with pytest.raises(BundleError, match="label is no index of one of the classes"):
        task.check(outputs)


def test_the_networks_own_label_is_the_prediction_whatever_is_most_probable() -> None:
    task = task_of(CLASSIFIER)
    outputs = outputs_of(CLASSIFIER, np.array([[0.9, 0.1]]), np.array([1]))
    prediction: Any = task.prediction(task.decide(outputs), "1", NOW, None)
    assert (prediction.class_index, prediction.label) == (1, "yes")
    assert prediction.confidence == pytest.approx(0.1)


def test_labels_apply_from_one_half_on_where_the_network_says_nothing() -> None:
    without = Manifest(
        "m", "1", REGRESSION.features, task="multilabel", inputs=REGRESSION.inputs,
        outputs=MULTILABEL.outputs[:1], labels=MULTILABEL.labels, batch=True,
    )  # fmt: skip
    answers = np.array([[0.5, 0.49], [0.2, 0.9]])
    assert task_of(without).decide(outputs_of(without, answers[:1])) == ((0,), (0.5, 0.49))
    batch = task_of(without).batch(outputs_of(without, answers), "1", NOW)
    assert [p.labels for p in batch] == [("large",), ("airy",)]  # type: ignore[attr-defined]
    own = outputs_of(MULTILABEL, answers, np.array([[0, 1], [1, 1]]))
    assert [p.indices for p in task_of(MULTILABEL).batch(own, "1", NOW)] == [(1,), (0, 1)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("manifest", "answers", "said"),
    [
        (CLASSIFIER, [[0.5, 0.6]], "not probabilities"),
        (CLASSIFIER, [[1.5, -0.5]], "not probabilities"),
        (CLASSIFIER, [[np.nan, 1]], "not probabilities"),
        (CLASSIFIER, [[0.2, 0.3, 0.5]], r"outputs of shape \(1, 3\), not \[-1, 2\]"),
        (MULTILABEL, [[1.5, 0]], "not probabilities"),
        (REGRESSION, [[1.0, 2.0]], r"outputs of shape \(1, 2\), not \[-1, 1\]"),
        (EMBEDDING, [1.0], r"outputs of shape \(1,\), not \[-1, 8\]"),
    ],
)
def test_outputs_that_can_not_be_the_tasks_are_refused(
    manifest: Manifest, answers: Any, said: str
) -> None:
    with pytest.raises(BundleError, match=said):
        task_of(manifest).check(outputs_of(manifest, np.array(answers)))


@pytest.mark.parametrize(
    ("manifest", "names", "width"),
    [
        (CLASSIFIER, ["probabilities", "prediction", "label", "own logits"], 2),
        (SCORES, ["scores", "prediction", "label"], 3),
        (MULTILABEL, ["probabilities", "prediction"], 2),
        (REGRESSION, ["values", "leaf"], 1),
        (EMBEDDING, ["embedding"], 8),
        (TENSORS, ["found", "next"], 0),
    ],
)
def test_clients_see_the_outputs_of_the_task_and_then_the_others(
    manifest: Manifest, names: list[str], width: int
) -> None:
    task = task_of(manifest)
    outputs = task.signature.outputs
    assert [spec.name for spec in outputs] == names
    assert all(type(spec) is OutputSpec for spec in outputs)
    assert (outputs[:1] == (task.answer,)) == (manifest is not TENSORS)
    assert outputs[1 : 1 + len(task.following)] == task.following
    assert all(spec.role == "label" for spec in task.following)
    assert task.answer_role == (names[0] if task.answer is not None else "")
    assert task.signature.inputs == manifest.inputs
    assert task.width == width


def test_a_model_without_features_has_the_outputs_of_its_network() -> None:
    plain = Manifest(
        "m", "1", classes=("no", "yes"), inputs=CLASSIFIER.inputs, outputs=CLASSIFIER.outputs
    )
    task = task_of(plain)
    assert task.signature == plain.signature
    assert (task.answer, task.following) == (plain.outputs[0], ())
    assert task.width == 0


def test_there_is_a_task_for_every_name_and_tensors_predict_nothing() -> None:
    assert {task_of(manifest).name for manifest in EACH.values()} == {*EACH}
    task = task_of(TENSORS)
    assert type(task) is Task
    task.check({})
    for attempt in (
        lambda: task.answers({}),
        lambda: task.decide({}),
        lambda: task.prediction((), "1", NOW, None),
        lambda: task.batch({}, "1", NOW),
    ):
        with pytest.raises(NotImplementedError, match="the task 'tensors' predicts nothing"):
            attempt()


def test_an_embedding_keeps_none_of_the_rows_beside_it() -> None:
    outputs = outputs_of(EMBEDDING, np.ones((3, 8)))
    vector = task_of(EMBEDDING).decide(row_of(outputs, 1))
    assert vector.base is None
    assert not vector.flags.writeable


Pack = Callable[[Path], Path]
PACKS: list[tuple[Pack, str]] = [
    (task_models.regression, "regression"),
    (task_models.multilabel, "multilabel"),
    (task_models.scores, "classification"),
    (task_models.embedding, "embedding"),
    (task_models.mixed, "classification"),
]


@pytest.mark.parametrize(("pack", "task"), PACKS)
def test_a_model_of_each_task_predicts_one_row_as_many_cached_or_not(
    pack: Pack, task: str, tmp_path: Path
) -> None:
    model = load_model(ModelSource(pack(tmp_path / "m" / "1"), cache_size=10))
    runtime: Any = Counting(model.runtime)
    model.runtime = runtime
    assert model.task.name == task
    golden = model.golden().row(0).inputs
    first, second = model.predict(golden), model.predict(golden)
    assert (first.was_cached, second.was_cached, runtime.runs) == (False, True, 1)
    [batched] = model.predict_batch(golden)  # type: ignore[misc]
    for prediction in (second, batched):
        np.testing.assert_allclose(prediction.values, first.values, rtol=1e-6)
    assert len(model.predict_batch(model.encoder.no_rows())) == 0


def test_a_model_of_several_inputs_shares_passes_and_one_of_whole_tensors_never_does(
    tmp_path: Path,
) -> None:
    mixed = load_model(ModelSource(task_models.mixed(tmp_path / "mixed" / "1"), batch_rows=8))
    assert isinstance(mixed.runtime, BatchingRuntime)
    pack_every_kind(tmp_path, tmp_path / "any" / "1")
    tensors: Model = load_model(ModelSource(tmp_path / "any" / "1", batch_rows=8))
    assert not tensors.manifest.batch
    assert not isinstance(tensors.runtime, BatchingRuntime)
