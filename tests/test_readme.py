"""The programs of the README and of docs/models.md do what these pages say."""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from flask import Flask
from flask.testing import FlaskClient

from app.client import DEFAULT_URL
from app.packing.description import read_description
from app.packing.file import pack_file
from app.packing.statement import Statement
from app.registry.loading import ModelSource
from app.registry.service import ModelService
from app.settings import load_settings
from tests.conftest import ROOT
from tests.deploy.conftest import read_environ, read_image, read_stages
from tests.integration.conftest import Server, free_port, wait_for

README = (ROOT / "README.md").read_text()
MODELS = (ROOT / "docs" / "models.md").read_text()
TRIED = re.sub(
    r"^## (Images and texts|Worked examples|Weights alone.*?)\n.*?(?=^## )",
    "",
    MODELS,
    flags=re.DOTALL | re.MULTILINE,
)
"""What of the page is followed; tests/test_examples.py compares the rest with the examples, and
tests/cli/test_pack.py packs images and texts."""

INSTALLED = "lantern_serving"
"""The name of the package where it is installed; tests/deploy/test_wheel.py tries it by that."""

Block = tuple[str, str]


def blocks(text: str, heading: str = "") -> list[Block]:
    """Return language and text of each block below ``heading``, or of the whole page."""
    if heading:
        text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)


BRING_YOUR_OWN = [*blocks(README, "Bring your own model"), *blocks(TRIED)]
[EXAMPLE_FEATURES, EXAMPLE_CATEGORIES] = [
    text for language, text in BRING_YOUR_OWN if language == "toml"
]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty directory in which both pages were followed, all but the serving."""
    directory = tmp_path_factory.mktemp("readme")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    programs = 0
    for language, text in BRING_YOUR_OWN:
        if language == "python":
            programs += 1
            command = [sys.executable, "-c", text.replace(INSTALLED, "app")]
            subprocess.run(command, cwd=directory, env=environ, check=True)
        if language == "sh":
            for line in text.replace("\\\n", "").splitlines():
                if line.startswith("lantern model"):
                    command = [sys.executable, "-m", "app", *shlex.split(line)[1:]]
                    subprocess.run(command, cwd=directory, env=environ, check=True)
    assert programs == 4
    return directory


def served(directory: Path) -> list[dict[str, str]]:
    """The settings of each command that serves a model of one's own."""
    found = []
    for _, text in BRING_YOUR_OWN:
        for path in re.findall(r"\blantern serve (\S+)", text):
            variables = dict(re.findall(r"(LANTERN_\w+)=(\S+)", text))
            found.append(variables | {"LANTERN_MODEL__PATH": str(directory / path)})
    return found


@pytest.mark.parametrize(
    ("which", "classes"),
    [(0, ["malignant", "benign"]), (1, ["stays", "leaves"]), (2, ["stays", "leaves"])],
)
def test_a_model_of_ones_own_serves_after_following_the_readme(
    followed: Path, which: int, classes: list[str]
) -> None:
    settings = load_settings(served(followed)[which]).model
    service = ModelService(
        ModelSource(
            settings.path,
            feature_names=settings.feature_names,
            class_names=settings.class_names,
        )
    )
    assert service.load(), service.fault
    model = service.current()
    assert list(model.classes) == classes
    row = model.encoder.encode(dict.fromkeys(model.encoder.names, 1.0))
    assert sum(model.predict(row).probabilities) == pytest.approx(1, abs=1e-6)


def test_the_encoder_of_the_models_page_answers_any_number_of_words(
    followed: Path, make_app: Callable[..., Flask]
) -> None:
    client = make_app(MODEL__PATH=str(followed / "models" / "encoder")).test_client()
    inputs = [
        {"name": "ids", "shape": [1, 5], "datatype": "INT64", "data": [1, 2, 3, 4, 5]},
        {"name": "mask", "shape": [1, 5], "datatype": "FP32", "data": [1, 1, 1, 0, 0]},
    ]
    answer = client.post("/v2/models/encoder/infer", json={"inputs": inputs})
    (output,) = answer.get_json()["outputs"]
    assert (output["name"], output["shape"]) == ("vector", [1, 16])


def test_the_tumours_of_the_readme_are_told_apart_over_http(
    followed: Path, make_app: Callable[..., Flask]
) -> None:
    client = make_app(MODEL__PATH=str(followed / "models" / "tumours")).test_client()
    with (followed / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = [("malignant", "benign")[int(row.pop("target"))] for row in rows]
    samples = [{name: float(value) for name, value in row.items()} for row in rows]
    answer = client.post("/predict/batch", json={"samples": samples}).get_json()
    right = [
        got["label"] == label for got, label in zip(answer["predictions"], labels, strict=True)
    ]
    assert sum(right) / len(right) > 0.95


def test_the_example_of_a_features_file_is_one(followed: Path, tmp_path: Path) -> None:
    (tmp_path / "features.toml").write_text(EXAMPLE_FEATURES)
    described = read_description(tmp_path / "features.toml")
    packed = read_description(followed / "features.toml")
    assert described.classes == packed.classes
    assert [feature.name for feature in described.features] == [
        feature.name for feature in packed.features[:2]
    ]
    assert set(described.medians) == {"mean texture"}


def test_the_example_of_categories_is_one(tmp_path: Path) -> None:
    (tmp_path / "features.toml").write_text(EXAMPLE_CATEGORIES)
    described = read_description(tmp_path / "features.toml")
    assert [target.unit for target in described.targets] == ["EUR"]
    assert [feature.kind for feature in described.features] == ["category", "category"]


@pytest.mark.parametrize("is_pickled", [False, True], ids=["weights", "module"])
def test_the_lines_that_export_a_network_of_ones_own_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_pickled: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    [(_, lines)] = blocks(MODELS, "Weights alone, and pickled modules")
    names = {"torch": torch, "Network": lambda: torch.nn.Linear(3, 2), "example": torch.ones(2, 3)}
    if is_pickled:
        [load] = re.findall(r"`(model = torch.load.*?)`", MODELS)
        lines = "\n".join([load, *lines.splitlines()[2:]])
        torch.save(torch.nn.Linear(3, 2), "model.pt")
    else:
        torch.save(torch.nn.Linear(3, 2).state_dict(), "weights.pt")
    exec(lines, names)
    (tmp_path / "samples.csv").write_text("a,b,c\n1,2,3\n4,5,6\n")
    pack_file(
        tmp_path / "model.pt2",
        tmp_path / "models" / "own" / "1",
        samples=tmp_path / "samples.csv",
        statement=Statement(task="embedding"),
    )


def curls() -> Iterator[tuple[Any, Any]]:
    """Return what each command of the quickstart posts, and what it is shown to be answered."""
    shown = blocks(README, "Quickstart")
    for (language, text), (_, answer) in pairwise(shown):
        if language == "sh" and "curl" in text:
            [url] = re.findall(r"curl -s (\S+)", text)
            assert url == f"{DEFAULT_URL}/predict"
            [body] = re.findall(r"-d '(.*)'", text, re.DOTALL)
            yield json.loads(body), json.loads(answer)


def test_the_answers_of_the_quickstart_are_those_it_shows(client: FlaskClient) -> None:
    answers = list(curls())
    assert len(answers) == 2
    for body, shown in answers:
        answer = client.post("/predict", json=body).get_json()
        assert list(answer) == list(shown)
        for changing in ("timestamp", "request_id"):
            assert (changing in answer) == (changing in shown)
            answer.pop(changing, None)
            shown.pop(changing, None)
        for probability in shown.get("probabilities", {}):
            shown["probabilities"][probability] = pytest.approx(
                shown["probabilities"][probability], abs=1e-6
            )
        assert answer == shown


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Lantern with what the README's `docker run` and the image set, and its address in there."""
    [commands] = [text for _, text in blocks(README, "In a container")]
    build, run = commands.splitlines()
    target, image = re.findall(r"docker build --target (\w+) -t (\S+) \.", build)[0]
    assert target in read_stages()
    assert run.endswith(f" {image}")
    [published] = re.findall(r"-p (\S+)", run)
    environ = read_environ(read_image(target)) | dict(re.findall(r"-e (\w+)=(\S+)", run))
    settings = {
        name.removeprefix("LANTERN_"): value
        for name, value in environ.items()
        if name.startswith("LANTERN_")
    }
    in_image = load_settings({f"LANTERN_{name}": value for name, value in settings.items()})
    assert published == f"127.0.0.1:{in_image.server.port}:{in_image.server.port}"
    exposed = f"{in_image.server.host}:{free_port()}"
    assert exposed.startswith("0.0.0.0:")
    log = tmp_path_factory.mktemp("container") / "log"
    server = Server(["-w", "1", "-b", exposed], settings, log)
    try:
        server.wait_until_up()
        wait_for(lambda: requests.get(f"{server.url}/health/ready", timeout=120).ok)
        yield server
    finally:
        server.stop()


def test_the_container_answers_the_first_request_without_a_key(container: Server) -> None:
    [(body, _), _] = curls()
    answer = requests.post(f"{container.url}/predict", json=body, timeout=120)
    assert answer.status_code == 200


def test_the_python_of_the_quickstart_prints_probabilities(container: Server) -> None:
    [program] = [text for language, text in blocks(README, "Quickstart") if language == "python"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program.replace(DEFAULT_URL, container.url).replace(INSTALLED, "app"), {})
    assert sum(ast.literal_eval(printed.getvalue()).values()) == pytest.approx(1, abs=1e-6)


def test_the_readme_can_be_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 200
