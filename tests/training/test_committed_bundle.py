"""The bundle in the repository: it serves, and its figures are what was aimed at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from app.model.manifest_file import read_manifest
from app.model.model import Model
from app.model.reference import read_reference
from app.model.signature import FEATURES, PROBABILITIES
from app.registry.loading import ModelSource, load_model

BUNDLE = Path(__file__).resolve().parents[2] / "models" / "campaign-response" / "1"


@pytest.fixture(scope="module")
def models() -> tuple[Model, Model]:
    """Return the bundle loaded in torch and in ONNX Runtime; loading runs the golden samples."""
    return load_model(ModelSource(BUNDLE, runtime="torch")), load_model(
        ModelSource(BUNDLE, runtime="onnx")
    )


def test_its_figures_meet_the_aims() -> None:
    """Mean AUC and Brier score of cross-validation, better than logistic regression's."""
    training = read_manifest(BUNDLE / "manifest.json").training
    network = training["cross_validation"]
    assert network["folds"] == 5
    assert network["roc_auc"]["mean"] >= 0.795
    assert network["brier"]["mean"] <= 0.110
    linear = training["baselines"]["logistic_regression"]
    assert network["roc_auc"]["mean"] > linear["roc_auc"]["mean"]
    assert network["brier"]["mean"] < linear["brier"]["mean"]


def test_both_runtimes_answer_alike_on_any_input(models: tuple[Model, Model]) -> None:
    """They agree to 1e-5 on plausible rows, on nulls, and on the greatest floats."""
    features = models[0].manifest.features
    random = np.random.default_rng(11)
    low = np.array([feature.minimum for feature in features], dtype=np.float64)
    high = np.array([feature.maximum for feature in features], dtype=np.float64)
    plausible = random.uniform(low, high, size=(2000, len(features)))
    largest = np.finfo(np.float32).max
    extremes = np.array([0, -1, 1e-30, 1e9, -1e9, largest, -largest, np.nan])
    extreme = random.choice(extremes, size=(2000, len(features)))
    rows = np.concatenate([plausible, plausible * 100, extreme]).astype(np.float32)
    answers = [model.predict_batch({FEATURES: rows}).answers for model in models]
    np.testing.assert_allclose(answers[0], answers[1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(answers[0].sum(axis=1), 1, atol=1e-5)


def test_its_examples_give_a_sensible_answer(models: tuple[Model, Model]) -> None:
    """Somebody typical is unlikely to respond; recent and long enrolled customers are likelier."""
    example = {feature.name: feature.example for feature in models[0].manifest.features}
    loyal = {**example, "tenure_days": 650.0, "days_since_last_purchase": 5.0}
    rows = models[0].encoder.encode_batch([example, loyal])
    typical, keen = models[0].predict_batch(rows).answers[:, 1]
    assert 0.01 < typical < 0.2
    assert keen > typical + 0.1


def test_it_is_of_format_2_with_the_answers_that_it_had_when_it_was_trained(
    models: tuple[Model, Model],
) -> None:
    """The network is the one of format 1, whose golden answers these are."""
    manifest = read_manifest(BUNDLE / "manifest.json")
    document = json.loads((BUNDLE / "manifest.json").read_text())
    assert document["format"] == 2
    assert manifest == models[0].manifest
    assert manifest.files["model.onnx"].sha256.startswith("0223dcb6c696552d")
    golden = models[1].golden()
    assert golden.rows == 8
    assert np.isnan(golden.inputs[FEATURES]).any()
    answers = models[1].predict_batch(golden.inputs).answers
    np.testing.assert_allclose(answers, golden.outputs[PROBABILITIES], rtol=0, atol=1e-5)
    assert answers[:5, 1].tolist() == sorted(answers[:5, 1].tolist())


def test_its_reference_is_of_the_rows_that_it_was_trained_on() -> None:
    manifest = read_manifest(BUNDLE / "manifest.json")
    reference = read_reference(BUNDLE / manifest.reference)
    assert reference.samples == manifest.training["rows"] == 1672
    for feature in manifest.features:
        of_feature = reference.features[feature.name]
        assert of_feature.deciles is not None
        assert sum(of_feature.deciles.counts) + of_feature.nulls == reference.samples
        assert bool(of_feature.nulls) == feature.nullable
    assert [*reference.answers] == [*reference.calibration] == list(manifest.classes)
    assert sum(reference.background.weights) > 0.9 * reference.samples
    assert reference.background.kind == "centroids"  # and nobody's row


def test_it_has_a_card_and_pictures() -> None:
    """The card shows the pictures that lie beside it, and says what the model is not for."""
    card = (BUNDLE / "README.md").read_text()
    for name in ("roc.png", "reliability.png"):
        assert f"]({name})" in card
        assert (BUNDLE / name).is_file()
    assert "Not intended" in card
    assert "protected attribute" in card
