"""``lantern model pack``: its options as an owner gives them, and what it prints."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from flask import Flask
from torch import nn

from tests.conftest import ROOT
from tests.handler_bundles import PLAIN
from tests.packing.test_steps import SENTENCES, of_images, of_texts, pictures
from tests.packing.test_tasks import ROWS, csv, product
from tests.step_models import tokenizer

Pack = Callable[..., Result]


@pytest.fixture
def pack(tmp_path: Path, make_app: Callable[..., Flask]) -> Pack:
    """Pack a file with a CSV of two columns, and return what the command says."""
    model = tmp_path / "models" / "mine"
    runner = make_app(MODEL__PATH=str(model)).test_cli_runner()
    samples = csv(tmp_path, "a,b", ROWS)

    def run(source: Path, *options: str, version: str = "1", exit_code: int = 0) -> Result:
        arguments = [str(source), "--out", str(model / version), *options]
        if "--samples" not in options:
            arguments += ["--samples", str(samples)]
        result = runner.invoke(args=["model", "pack", *arguments])
        assert result.exit_code == exit_code, result.output
        return result

    return run


CLASSES = ("--task", "classification", "--classes", "p,q,r")


def test_what_was_assumed_and_measured_is_printed(tmp_path: Path, pack: Pack) -> None:
    lines = pack(product(tmp_path), *CLASSES, "--outputs", "logits").stdout.splitlines()
    assert "The features are the columns of samples.csv, in their order." in lines
    assert "A softmax was added after 'y', which has logits." in lines
    assert any(line.startswith("Golden sample 2 of 4 -> ") for line in lines)
    assert lines[-1].startswith("Packed version 1 of mine to ")


def test_json_has_the_manifest_and_the_notes(tmp_path: Path, pack: Pack) -> None:
    source = product(tmp_path)
    document = json.loads(pack(source, *CLASSES, "--outputs", "y=logits", "--json").stdout)
    assert document["classes"] == ["p", "q", "r"]
    assert "A softmax was added after 'y', which has logits." in document["notes"]
    manifest = json.loads((tmp_path / "models" / "mine" / "1" / "manifest.json").read_text())
    assert document == manifest | {"notes": document["notes"]}


@pytest.mark.parametrize(
    ("wrong", "said", "right"),
    [
        ((), "give --task classification|", (*CLASSES, "--outputs", "logits")),
        (CLASSES, "--outputs logits", (*CLASSES, "--outputs", "logits")),
        (
            ("--task", "classification", "--outputs", "logits"),
            "--classes a,b,...",
            (*CLASSES, "--outputs", "logits"),
        ),
        (
            (*CLASSES, "--outputs", "probabilities"),
            "--outputs logits",
            (*CLASSES, "--outputs", "logits"),
        ),
        (
            ("--task", "regression", "--outputs", "logits", "--classes", "u,v,w"),
            "whose answer is values",
            ("--task", "regression", "--outputs", "values", "--classes", "u,v,w"),
        ),
        (
            (*CLASSES, "--outputs", "z=logits"),
            "the model's outputs are y",
            (*CLASSES, "--outputs", "y=logits"),
        ),
    ],
)
def test_the_option_that_an_error_names_makes_it_pack(
    *, tmp_path: Path, pack: Pack, wrong: tuple[str, ...], said: str, right: tuple[str, ...]
) -> None:
    source = product(tmp_path)
    result = pack(source, *wrong, exit_code=1)
    assert result.stderr.startswith("Error: ")
    assert said in result.stderr
    pack(source, *right)


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_converted_where_its_owner_allows_it(tmp_path: Path, pack: Pack) -> None:
    torch.manual_seed(0)
    torch.jit.save(torch.jit.script(nn.Linear(2, 3).eval()), tmp_path / "script.pt")
    np.savez(tmp_path / "example.npz", input=np.ones((2, 2), np.float32))
    options = ("--samples", str(tmp_path / "example.npz"), "--task", "tensors")
    assert "is TorchScript" in pack(tmp_path / "script.pt", *options, exit_code=1).stderr
    allowed = pack(tmp_path / "script.pt", *options, "--allow-code")
    assert "Packed version 1 of mine" in allowed.stdout


def test_samples_are_missing_of_a_file(tmp_path: Path, make_app: Callable[..., Flask]) -> None:
    runner = make_app(MODEL__PATH=str(tmp_path / "models" / "mine")).test_cli_runner()
    said = runner.invoke(args=["model", "pack", "x.onnx", "--out", str(tmp_path / "models/m/1")])
    assert said.exit_code == 2
    assert "Missing option '--samples'" in said.stderr
    assert "model pack x.onnx --samples samples.csv --out models/NAME/1" in said.stderr


def test_the_place_of_the_bundle_is_asked_for_with_an_example(
    tmp_path: Path, make_app: Callable[..., Flask]
) -> None:
    runner = make_app(MODEL__PATH=str(tmp_path / "models" / "mine")).test_cli_runner()
    said = runner.invoke(args=["model", "pack", "some dir/my digits.mar"])
    assert said.exit_code == 2
    assert "Missing option '--out'. The bundle to create" in said.stderr
    assert "--out models/my-digits/1" in said.stderr


def test_samples_that_are_missing_of_a_handler_are_named_with_the_command(
    tmp_path: Path, make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("double.py").write_text(PLAIN)
    Path("request.json").write_text('{"value": 3}')
    runner = make_app(MODEL__PATH=str(tmp_path / "models" / "mine")).test_cli_runner()
    said = runner.invoke(args=["model", "pack", "double.py", "--out", "models/double/1"])
    assert said.exit_code == 2
    assert "Missing option '--samples'. A file to send the handler as a request" in said.stderr
    command = said.stderr.strip().splitlines()[-1].replace("NAME", "double")
    words = shlex.split(command)
    packed = runner.invoke(args=words[words.index("model") :])
    assert packed.exit_code == 0, packed.output


def test_the_worked_commands_for_images_and_texts_pack_them(
    tmp_path: Path, make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    section = page.partition("\n## Images and texts\n")[2].partition("\n### A directory")[0]
    documents = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    commands = re.findall(r"```sh\nlantern (.*?)```", section, re.DOTALL)
    assert len(documents) == len(commands) == 2
    monkeypatch.chdir(tmp_path)
    of_images(tmp_path, shape=("n", 3, 32, 32)).rename("pictures.onnx")
    of_texts(tmp_path).rename("topics.onnx")
    pictures(tmp_path).rename("photos")
    Path("tokenizer.json").write_bytes(tokenizer())
    Path("texts.txt").write_text("\n".join(SENTENCES))
    runner = make_app(MODEL__PATH=str(tmp_path / "models" / "pictures")).test_cli_runner()
    for document, command in zip(documents, commands, strict=True):
        words = shlex.split(command.replace("\\\n", ""))
        Path(words[words.index("--features") + 1]).write_text(document)
        result = runner.invoke(args=words)
        assert result.exit_code == 0, result.output
        assert "Packed version 1 of " in result.stdout
