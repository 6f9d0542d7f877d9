"""A version of any task is shown, verified, compared and released."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.model.errors import ReleaseRejected
from app.model.reference import Background, Reference, write_reference
from app.registry.diff import diff_versions
from app.registry.loading import ModelSource
from app.registry.release import Release, read_release
from app.registry.repository import Repository
from app.registry.service import ModelService
from app.registry.succession import read_succession
from app.registry.verification import verify
from tests import task_models
from tests.damage import edit_golden, edit_manifest, record_file
from tests.tensor_graphs import pack_every_kind

TASKS = ["regression", "multilabel", "scores", "embedding", "mixed"]
Run = Callable[..., str]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the versions of a model are to be."""
    return tmp_path / "models" / "any"


@pytest.fixture
def run(directory: Path, make_app: Callable[..., Flask]) -> Run:
    """Run a command on the model."""

    def invoke(*arguments: str, exit_code: int = 0) -> str:
        runner = make_app(MODEL__PATH=str(directory)).test_cli_runner()
        result = runner.invoke(args=["model", *arguments])
        assert result.exit_code == exit_code, result.output
        return result.output

    return invoke


def cells(text: str) -> list[list[str]]:
    """Return the cells of each line of a table."""
    return [re.split(r" {2,}", line) for line in text.splitlines()]


def write(directory: Path, task: str, *versions: str) -> None:
    for version in versions:
        getattr(task_models, task)(directory / version)


@pytest.mark.parametrize("task", TASKS)
def test_a_version_goes_all_the_way(directory: Path, run: Run, task: str) -> None:
    write(directory, task, "1", "2")
    assert read_succession(directory).versions == ("1", "2")
    document = json.loads(run("verify", "2", "--json"))
    assert document["passed"] is True
    assert document["outputs"] == len(document["runtimes"][0]["outputs"]) == 1
    (output,) = document["runtimes"][0]["outputs"].values()
    assert output["alone"] == pytest.approx(0, abs=1e-3)
    assert output["together"] == pytest.approx(0, abs=1e-3)
    assert "Version 2 verifies" in run("verify", "2")
    diff = json.loads(run("diff", "1", "2", "--json"))
    assert diff["breaking"] == diff["harmless"] == []
    assert diff["agreement"]["agreed"] == 1
    assert diff["agreement"]["largest_difference"] == pytest.approx(0, abs=1e-6)
    assert "same " in run("diff", "1", "2")
    run("promote", "1")
    run("shadow", "2")
    run("canary", "2", "--traffic", "0.5")
    service = ModelService(ModelSource(directory))
    assert service.load()
    assert service.rollout.candidate is not None
    assert not service.fault
    run("promote", "2")
    assert read_release(directory) == Release("2")


def test_everything_of_a_manifest_is_shown(directory: Path, run: Run) -> None:
    write(directory, "mixed", "1")
    lines = cells(run("show", "1"))
    assert ["city", "category", "Oslo, Zürich, New York", "-", "no", "texts[0]", "Where"] in lines
    assert ["comment", "category", "any", "-", "yes", "texts[1]", "-"] in lines
    assert ["member", "boolean", "true or false", "-", "no", "flags[0]", "-"] in lines
    assert ["visits", "integer", "0 to 100", "-", "no", "counts", "-"] in lines
    assert ["counts", "INT64", "[-1]"] in lines
    assert ["class_1", "yes"] in lines
    shutil.rmtree(directory)
    task_models.regression(directory / "1", ("price", "rent"))
    lines = cells(run("show", "1"))
    assert ["rent", "EUR", "The rent"] in lines
    assert ["values", "FP32", "[-1, 2]", "values", "1e-05 + 1e-05 of its size"] in lines
    assert "2 features, 2 targets" in run("verify", "1")


def test_reference_data_are_a_gate_of_a_release(directory: Path) -> None:
    write(directory, "regression", "1", "2")
    repository = Repository(directory)
    repository.promote("1")
    file = directory / "2" / "reference.json"
    file.write_text("what nobody can read")
    record_file(directory / "2", file.name)
    edit_manifest(directory / "2", lambda m: m.update(reference=file.name))
    assert "is no reference" in str(verify(directory, "2", measure=False).problems)
    write_reference(Reference(0, {}, {}, Background("rows", (), ())), file)
    record_file(directory / "2", file.name)
    assert verify(directory, "2", measure=False).passed
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ReleaseRejected, match=r"reference\.json has .* bytes"):
        repository.promote("2")
    file.unlink()
    with pytest.raises(ReleaseRejected, match=r"reference\.json is missing"):
        repository.canary("2", 0.5)
    assert read_release(directory) == Release("1")


@pytest.mark.parametrize(
    ("task", "edit", "said"),
    [
        ("regression", lambda m: m["targets"][0].update(unit="USD"), "The unit of 'price' changes"),
        ("regression", lambda m: m["targets"][0].update(name="cost"), "is now called 'cost'"),
        ("multilabel", lambda m: m["labels"].reverse(), "The labels are in another order"),
        ("scores", lambda m: m["classes"].reverse(), "The classes are in another order"),
        ("mixed", lambda m: m["features"][0]["categories"].pop(), "no longer accepts 'New York'"),
        (
            "mixed",
            lambda m: m["features"][2]["categories"].reverse(),
            "The codes in the input 'codes' changed",
        ),
        (
            "mixed",
            lambda m: m["features"][5].update(unknown="refuse", categories=["fine"]),
            "'comment' no longer accepts unknown values",
        ),
    ],
)
def test_what_would_break_callers_of_a_task_takes_no_release(
    directory: Path, task: str, edit: Callable[[dict[str, Any]], object], said: str
) -> None:
    write(directory, task, "1", "2")
    edit_manifest(directory / "2", edit)
    succession = read_succession(directory)
    assert succession.versions == ("1",)
    assert said in succession.held_back["2"]
    repository = Repository(directory)
    repository.promote("1")
    for change in (
        lambda: repository.promote("2"),
        lambda: repository.canary("2", 0.5),
        lambda: repository.shadow("2"),
    ):
        with pytest.raises(ReleaseRejected, match=said):
            change()
    repository.promote("2", allow_schema_change=True)
    assert read_release(directory) == Release("2")


def test_a_version_that_answers_a_task_otherwise_is_told_by_its_output(directory: Path) -> None:
    write(directory, "multilabel", "1")
    edit_golden(directory / "1", lambda arrays: arrays["output_0"].__iadd__(0.125))
    (report,) = verify(directory, "1").runtimes
    assert report.outputs["probabilities"].alone == pytest.approx(0.125, abs=1e-5)
    assert report.single_difference == report.outputs["probabilities"].alone
    assert "'probabilities' differs by up to 0.12" in report.problem


def test_versions_of_a_regression_are_compared_in_its_unit(directory: Path) -> None:
    task_models.regression(directory / "1", ("price", "rent"))
    task_models.regression(directory / "2", ("rent", "price"))  # so each is another multiple
    agreement = diff_versions(directory, "1", "2").agreement
    assert agreement is not None
    total = 3 + 85.5
    assert agreement.samples == 1
    assert agreement.agreed == 0
    assert agreement.largest_difference == agreement.mean_difference == pytest.approx(total)


def test_versions_that_can_not_be_compared_say_why(directory: Path) -> None:
    task_models.embedding(directory / "1", 4)
    task_models.embedding(directory / "2", 8)
    write(directory, "regression", "3")
    assert "different shapes" in diff_versions(directory, "1", "2").incomparable
    diff = diff_versions(directory, "1", "3")
    assert diff.incomparable == "The versions have different tasks."
    assert diff.breaking == ("The task is 'regression', and was 'embedding'.",)
    task_models.regression(directory / "4", ("rent",))
    assert diff_versions(directory, "3", "4").incomparable == (
        "The versions have different targets."
    )


def test_tensors_without_a_meaning_are_compared_output_by_output(
    directory: Path, run: Run, tmp_path: Path
) -> None:
    for version in ("1", "2"):
        pack_every_kind(tmp_path, directory / version)
    agreement = json.loads(run("diff", "1", "2", "--json"))["agreement"]
    assert agreement == {
        "samples": 2, "agreed": 1, "largest_difference": 0, "mean_difference": 0,
    }  # fmt: skip
    lines = cells(run("verify", "1"))
    assert ["onnx", "same text", "-", "-", "equal"] in lines
    assert ["onnx", "total", "0", "-", "equal"] in lines
    run("promote", "1")
    assert "can't be a shadow" in run("shadow", "2", exit_code=1)
