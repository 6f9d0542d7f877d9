"""The command line: from a CSV to a bundle that serves, or to a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app.model.manifest_file import read_manifest
from app.model.reference import read_reference
from app.model.runtime import RuntimeChoice
from app.model.signature import FEATURES
from app.registry.loading import ModelSource
from app.registry.service import ModelService
from training.train import main

PNG = b"\x89PNG\r\n\x1a\n"


def arguments(data: Path, out: Path) -> list[str]:
    """Return a command line for a run of seconds."""
    return ["--data", str(data), "--out", str(out), "--epochs", "2", "--folds", "3"]


def test_the_trained_bundle_serves_under_both_runtimes(customers_csv: Path, tmp_path: Path) -> None:
    """Both answer alike, a null included; name and version are those of the directory."""
    bundle = tmp_path / "models" / "example" / "7"
    assert main(arguments(customers_csv, bundle)) == 0
    answers = []
    runtimes: tuple[RuntimeChoice, ...] = ("torch", "onnx")
    for runtime in runtimes:
        service = ModelService(ModelSource(bundle, runtime=runtime))
        assert service.load(), service.fault
        row = np.array([[40, np.nan, 300, 10, 30, 20]], dtype=np.float32)
        answers.append(service.current().predict({FEATURES: row}).values)
        info = service.current().info()
        assert (info["name"], info["model_version"], info["runtime"]) == ("example", "7", runtime)
    assert json.loads((bundle / "manifest.json").read_text())["format"] == 2
    reference = read_reference(bundle / "reference.json")
    assert reference.samples == 240
    assert sum(each.count for each in reference.calibration["response"]) == 240
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)


def test_training_reports_fold_by_fold_and_in_the_bundle(
    customers_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same figures are printed, kept in the manifest and written on the card."""
    bundle = tmp_path / "models" / "example" / "7"
    assert main(arguments(customers_csv, bundle)) == 0
    printed = capsys.readouterr()
    for model in ("network", "logistic regression", "gradient boosting"):
        assert printed.out.count(model) == 3 + 1  # the folds, and their mean
    assert "all rows: 100%" in printed.err

    training = read_manifest(bundle / "manifest.json").training
    assert (training["rows"], training["epochs"]) == (240, 2)
    assert len(training["cross_validation"]["by_fold"]) == 3
    assert set(training["baselines"]) == {"logistic_regression", "gradient_boosting"}
    area = training["cross_validation"]["roc_auc"]
    assert f"{area['mean']:.4f} ± {area['std']:.4f}" in printed.out

    card = (bundle / "README.md").read_text()
    on_card = re.search(r"\| network \| (0\.\d+) ±", card)
    assert on_card is not None
    assert float(on_card[1]) == pytest.approx(area["mean"], abs=0.0006)
    command = (
        "python -m training.train --data customers.csv --out models/example/7 --folds 3 --epochs 2"
    )
    assert command in card
    for picture in ("roc.png", "reliability.png"):
        assert (bundle / picture).read_bytes().startswith(PNG)
        assert (bundle / picture).stat().st_size < 100_000


def test_an_older_bundle_is_replaced_and_nothing_tells_of_the_machine(
    customers_csv: Path, tmp_path: Path
) -> None:
    """What lay there is gone, and no file of the new one holds a path of where it was made."""
    bundle = tmp_path / "models" / "example" / "7"
    bundle.mkdir(parents=True)
    for name in ("manifest.json", "older.txt"):
        (bundle / name).write_text("{}")
    assert main(arguments(customers_csv, bundle)) == 0
    assert not (bundle / "older.txt").exists()
    for file in bundle.iterdir():
        content = file.read_bytes()
        assert str(tmp_path).encode() not in content
        assert str(Path(__file__).parents[2]).encode() not in content


def test_wrong_columns_end_with_a_sentence_that_names_them(
    customers: pd.DataFrame,
    write: Callable[[pd.DataFrame], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The exit status is 2, standard error has one line, and nothing is written."""
    path = write(customers.rename(columns={"income": "salary"}))
    assert main(arguments(path, tmp_path / "out")) == 2
    message = capsys.readouterr().err
    assert message == (
        "training: The columns are wrong (missing: 'income'; unexpected: 'salary').\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_directory_that_is_no_bundle_is_not_replaced(
    customers_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistaken --out costs nobody their files."""
    assert main(arguments(customers_csv, tmp_path)) == 2
    assert "is not a bundle" in capsys.readouterr().err
    assert customers_csv.exists()


@pytest.mark.parametrize("option", [["--epochs", "0"], ["--folds", "1"], ["--seed", "x"]])
def test_options_out_of_reason_are_refused(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The option is named, as argparse does."""
    with pytest.raises(SystemExit) as stop:
        main([*arguments(tmp_path / "none.csv", tmp_path / "out"), *option])
    assert stop.value.code == 2
    assert option[0] in capsys.readouterr().err
