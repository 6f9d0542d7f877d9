"""Handlers of the owner, packed around a network or alone: the page on them is true."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from app.model.code.request import HandlerRequest
from app.model.errors import BundleError
from app.packing.file import pack_file
from app.packing.own_handler import HandlerParts
from app.packing.statement import Statement
from app.registry.loading import ModelSource, load_model
from tests import task_models
from tests.conftest import ROOT
from tests.handler_bundles import PLAIN, answer
from tests.walks import environment, run, serving

PAGE = (ROOT / "docs" / "handlers.md").read_text()
ALLOWED = Statement(allow_code=True)
AROUND = """
import words

class Handler:
    def preprocess(self, request):
        return {"features": request.json()}

    def postprocess(self, outputs, request):
        return {"price": float(outputs["values"][0]), "currency": words.CURRENCY}
"""


def example() -> tuple[str, list[str], Any]:
    """Return the handler of the page, the commands around it, and the answer that it shows."""
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE.partition("\n| method |")[0], re.DOTALL)
    [handler] = [text for kind, text in blocks if kind == "python"]
    scripts = [text for kind, text in blocks if kind == "sh"]
    [shown] = [json.loads(text) for kind, text in blocks if kind == "json"]
    return handler, scripts, shown


@pytest.mark.isolated
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_example_of_the_page_runs_as_it_is_written(tmp_path: Path) -> None:
    handler, (script, call), shown = example()
    (tmp_path / "models").symlink_to(ROOT / "models")  # as in a checkout
    (tmp_path / "handler.py").write_text(handler)
    *packing, serve = script.splitlines()
    command = f'lantern() {{ {shlex.quote(sys.executable)} -m app "$@"; }}'
    environ = environment()
    said = run(["bash", "-ec", "\n".join([command, *packing])], tmp_path, environ)
    assert "The handler answers 1 golden request." in said
    words = shlex.split(serve)
    assert words[:2] == ["lantern", "serve"]
    with serving(words[1:], tmp_path, environ) as port:
        curl = [*shlex.split(call.replace(":8000/", f":{port}/")), "--silent"]
        assert json.loads(run([*curl, "--fail"], tmp_path, environ)) == shown
        (tmp_path / "customer.csv").write_text("44,51546")
        assert "Send 6 numbers, not 2." in run(curl, tmp_path, environ)
        (tmp_path / "customer.csv").write_text("Rome")
        assert "Send numbers, separated by commas." in run(curl, tmp_path, environ)


def test_a_handler_around_a_network_leaves_that_to_be_verified_as_before(tmp_path: Path) -> None:
    flats = task_models.regression(tmp_path / "models" / "flats" / "1")
    (tmp_path / "handler.py").write_text(AROUND)
    (tmp_path / "words.py").write_bytes(b"CURRENCY = 'EUR'")
    (tmp_path / "a.json").write_text("[3, 80]")
    pack_file(
        tmp_path / "handler.py",
        tmp_path / "models" / "lines" / "1",
        samples=tmp_path / "a.json",
        statement=ALLOWED,
        handler=HandlerParts(flats, (tmp_path / "words.py",)),
    )
    model = load_model(ModelSource(tmp_path / "models" / "lines" / "1", allow_code=("lines",)))
    found = answer(model, HandlerRequest(b"[3, 80]", "application/json"))
    assert json.loads(found.body) == {"price": 83.0, "currency": "EUR"}
    assert model.golden().rows > 0


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
