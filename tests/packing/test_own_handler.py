"""Handlers of the owner, packed around a network or alone: the page on them is true."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from app.model.code.errors import HandlerRefusal
from app.model.code.request import HandlerRequest
from app.model.errors import BundleError
from app.packing.file import pack_file
from app.packing.own_handler import HandlerParts
from app.packing.statement import Statement
from app.registry.loading import ModelSource, load_model
from tests import task_models
from tests.conftest import ROOT
from tests.handler_bundles import PLAIN, answer

PAGE = (ROOT / "docs" / "handlers.md").read_text()
ALLOWED = Statement(allow_code=True)


def block(language: str) -> str:
    return PAGE.partition(f"```{language}\n")[2].partition("```")[0]


@pytest.fixture
def run(
    tmp_path: Path, make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    runner = make_app().test_cli_runner()
    return lambda *arguments: runner.invoke(args=[*arguments])


def test_the_handler_of_the_page_is_packed_as_it_says_and_answers(
    tmp_path: Path, run: Callable[..., Result]
) -> None:
    task_models.regression(tmp_path / "models" / "flats" / "1")
    (tmp_path / "handler.py").write_text(block("python"))
    (tmp_path / "cities.txt").write_text("Oslo Rome")
    (tmp_path / "sample.txt").write_text("Rome 85.5")
    command = shlex.split(block("sh").replace("\\\n", ""))
    packed = run(*command[1:])
    assert packed.exit_code == 0, packed.output
    assert "The handler answers 1 golden request." in packed.output
    assert "Packed version 1 of lines" in packed.output
    model = load_model(ModelSource(tmp_path / "models" / "lines" / "1", allow_code=("lines",)))
    found = answer(model, HandlerRequest(b"Oslo 20"))
    assert json.loads(found.body) == {"price": 20.0, "currency": "EUR"}
    with pytest.raises(HandlerRefusal, match="Paris is not one of Oslo, Rome"):
        answer(model, HandlerRequest(b"Paris 20"))
    assert model.golden().rows > 0  # the network is verified as before


def test_the_page_names_every_member_that_a_handler_gets() -> None:
    named = set(re.findall(r"`(\w+)(?:\(.*?\))?`", PAGE))
    assert {"body", "content_type", "headers", "parameters", "field", "json"} <= named
    assert {"read", "path", "open", "error", "counter", "logger", "classes", "inputs"} <= named


def test_a_handler_alone_needs_no_network_and_names_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "double.py").write_text(PLAIN)
    (tmp_path / "a.json").write_text('{"value": 3}')
    packed = pack_file(
        tmp_path / "double.py",
        tmp_path / "m" / "1",
        samples=tmp_path / "a.json",
        statement=ALLOWED,
        handler=HandlerParts(requires=("pillow>=10",)),
    )
    assert packed.manifest.handler is not None
    assert packed.manifest.handler.requirements == ("pillow>=10",)
    model = load_model(ModelSource(tmp_path / "m" / "1", allow_code=True))
    assert answer(model, HandlerRequest(b'{"value": 4}')).body == b"8"


@pytest.mark.parametrize(
    ("parts", "statement", "said"),
    [
        (HandlerParts(), Statement(), "is code, which runs to be packed. Pack it with"),
        (HandlerParts(), Statement("regression", allow_code=True), "leave out --task, --outputs"),
        (HandlerParts(files=(Path("gone.txt"),)), ALLOWED, "gone.txt is missing, or not a reg"),
        (HandlerParts(files=(Path("a/handler.py"),)), ALLOWED, "has the name of another file"),
        (HandlerParts(network=Path("nowhere")), ALLOWED, "nowhere/manifest.json is missing"),
    ],
)  # fmt: skip
def test_what_can_not_be_packed_is_refused(
    parts: HandlerParts, statement: Statement, said: str, tmp_path: Path
) -> None:
    (tmp_path / "handler.py").write_text(PLAIN)
    (tmp_path / "a.json").write_text('{"value": 3}')
    with pytest.raises(BundleError) as refused:
        pack_file(
            tmp_path / "handler.py",
            tmp_path / "m" / "1",
            samples=tmp_path / "a.json",
            statement=statement,
            handler=parts,
        )
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("class Handler", "{handler} can't be loaded: loading it raised SyntaxError"),
        ("class Other: pass", "{handler} has no class Handler."),
        (
            "import words\n" + PLAIN,
            "{handler} can't be loaded: loading it raised ZeroDivisionError",
        ),
        (
            PLAIN.replace("self.bundle = bundle", "open(bundle.path('words.py').parent / 'gone')"),
            "No such file or directory: 'gone'",
        ),
    ],
)
def test_an_error_names_the_files_that_were_given(source: str, said: str, tmp_path: Path) -> None:
    handler = tmp_path / "handler.py"
    handler.write_text(source)
    (tmp_path / "words.py").write_text("1 / 0" if "import words" in source else "")
    (tmp_path / "a.json").write_text('{"value": 3}')
    with pytest.raises(BundleError) as refused:
        pack_file(
            handler,
            tmp_path / "m" / "1",
            samples=tmp_path / "a.json",
            statement=ALLOWED,
            handler=HandlerParts(files=(tmp_path / "words.py",)),
        )
    assert said.format(handler=handler) in str(refused.value)
    assert str(refused.value).startswith(str(handler))
    assert f"{tmp_path}/m/" not in str(refused.value)


def test_a_handler_that_refuses_every_sample_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text(PLAIN)
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(BundleError, match="refuses every sample: 'The body is not JSON"):
        pack_file(
            tmp_path / "handler.py",
            tmp_path / "m" / "1",
            samples=tmp_path / "a.json",
            statement=ALLOWED,
        )
