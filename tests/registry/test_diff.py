"""Two versions side by side: schema, training metrics, and answers to the same samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.model.errors import BundleError
from app.model.signature import FEATURES as MATRIX
from app.packing.network import pack
from app.registry.diff import diff_versions
from app.registry.loading import ModelSource, load_model
from tests.damage import Arrays, corrupt, edit_golden, edit_manifest
from tests.small_model import CLASSES, FEATURES, make_network


def test_versions_are_compared_by_schema_training_metrics_and_answers(versions: Path) -> None:
    diff = diff_versions(versions, "1", "3")
    assert diff.breaking == diff.harmless == ()
    assert diff.training_metrics == {"rows": (100, 300), "cv.roc_auc.mean": (0.81, 0.83)}
    agreement = diff.agreement
    assert agreement is not None
    assert agreement.samples == 6
    models = [load_model(ModelSource(versions / v)) for v in ("1", "3")]
    samples = np.concatenate([model.golden().inputs[MATRIX] for model in models])
    old, new = (model.predict_batch({MATRIX: samples}).answers for model in models)
    assert agreement.largest_difference == pytest.approx(float(np.abs(old - new).max()))
    assert agreement.mean_difference == pytest.approx(float(np.abs(old - new).mean()))
    assert agreement.agreed == pytest.approx((old.argmax(1) == new.argmax(1)).mean())


def test_a_version_agrees_with_itself(versions: Path) -> None:
    agreement = diff_versions(versions, "2", "2").agreement
    assert agreement is not None
    assert (agreement.samples, agreement.agreed, agreement.largest_difference) == (3, 1, 0)


def test_columns_and_classes_in_another_order_are_compared_by_name(versions: Path) -> None:
    """The same network, its inputs and outputs permuted, agrees with itself."""
    columns, classes = [2, 0, 1], [1, 2, 0]
    network = make_network()
    steps = network.preprocessing
    for module in (steps.impute, steps.clip, steps.log1p, steps.standardise):
        for name, values in module.named_buffers():
            setattr(module, name, values[columns])
    with torch.no_grad():
        first, last = network.classifier[0], network.classifier[-1]
        first.weight[:] = first.weight[:, columns].clone()
        last.weight[:], last.bias[:] = last.weight[classes].clone(), last.bias[classes].clone()
    golden = np.array([[1, 30, 20_000], [9, 60, np.nan]], dtype=np.float32)
    pack(
        network,
        versions / "4",
        name="example",
        version="4",
        features=[FEATURES[column] for column in columns],
        classes=[CLASSES[index] for index in classes],
        golden_samples=golden,
    )
    diff = diff_versions(versions, "1", "4")
    assert diff.agreement is not None
    assert diff.agreement.largest_difference < 1e-5
    assert diff.agreement.agreed == 1
    sentence = diff.breaking[0]
    assert sentence.startswith("The columns of the input 'features' moved (column 0 was 'age'")
    assert diff.training_metrics["rows"] == (100, None)


def test_a_null_is_not_sent_to_a_version_that_does_not_accept_it(versions: Path) -> None:
    def leave_out_the_null(arrays: Arrays) -> None:
        arrays.update({name: np.delete(array, 1, axis=0) for name, array in arrays.items()})

    def refuse_null(manifest: dict[str, Any]) -> None:
        manifest["features"][1]["nullable"] = False

    edit_manifest(versions / "2", refuse_null)
    edit_golden(versions / "2", leave_out_the_null)
    agreement = diff_versions(versions, "1", "2").agreement
    assert agreement is not None
    assert agreement.samples == 4


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda m: m["features"][0].update(name="years"), "have different features"),
        (lambda m: m["classes"].__setitem__(0, "never"), "have different classes"),
    ],
)
def test_schemas_too_different_are_compared_but_not_their_answers(
    versions: Path, edit: Any, said: str
) -> None:
    edit_manifest(versions / "2", edit)
    diff = diff_versions(versions, "1", "2")
    assert diff.breaking
    assert diff.agreement is None
    assert said in diff.incomparable


def test_a_version_that_does_not_load_is_compared_by_its_manifest(versions: Path) -> None:
    corrupt(versions / "2")
    diff = diff_versions(versions, "1", "2")
    assert diff.training_metrics
    assert diff.agreement is None
    assert "does not match the SHA-256" in diff.incomparable


def test_without_a_manifest_there_is_nothing_to_compare(versions: Path) -> None:
    (versions / "2" / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"manifest\.json is missing"):
        diff_versions(versions, "1", "2")
