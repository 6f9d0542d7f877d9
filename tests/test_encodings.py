"""No text is read or written in whatever encoding the locale happens to have."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PLACES = ("app", "training", "benchmarks", "trials")
MODULES = [
    *(ROOT / name for name in ("gunicorn.conf.py", "wsgi.py")),
    *(
        path
        for place in PLACES
        for path in sorted((ROOT / place).rglob("*.py"))
        if ".venvs" not in path.parts
    ),
]
OPENERS = {"open": 1, "fdopen": 1, "TemporaryFile": 0, "NamedTemporaryFile": 0}
"""What opens a file, and where its mode stands; a method has no path before it."""
PROGRAMS = ("run", "Popen", "check_output", "check_call", "call")


def calls(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each call that leaves the encoding of text to the locale."""
    tree = ast.parse(source)
    unused = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        is_method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        # A file that nobody keeps is none, but a thing that has a method of that name.
        if "encoding" in keywords or None in keywords or (name == "open" and id(node) in unused):
            continue
        reads = name in ("read_text", "write_text", "TextIOWrapper")
        runs = name in PROGRAMS and ({"text", "universal_newlines", "errors"} & keywords.keys())
        if reads or runs or (name in OPENERS and opens_text(node, name, keywords, is_method)):
            yield node.lineno, name


def opens_text(
    node: ast.Call, name: str, keywords: dict[str | None, ast.expr], is_method: bool
) -> bool:
    """Return whether a call opens a file as text; one of ``os.open`` has flags in that place."""
    if ast.unparse(node.func) == "os.open" or (is_method and name == "open" and not is_path(node)):
        return False
    at = OPENERS[name] - (is_method and name == "open")
    mode = keywords.get("mode", node.args[at] if len(node.args) > at else None)
    default = "w+b" if "Temporary" in name else "r"
    text = mode.value if isinstance(mode, ast.Constant) else default
    return "b" not in str(text)


def is_path(node: ast.Call) -> bool:
    """Return whether this is a path's ``open``, which takes a mode or nothing."""
    return not node.args or isinstance(node.args[0], ast.Constant)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_and_program_has_its_encoding_said(path: Path) -> None:
    assert list(calls(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("text = path.read_text()", True),
        ("path.read_text(errors='replace')", True),
        ("path.read_text('utf-8')", True),  # said by its keyword, so that it is seen
        ("path.read_text(encoding='utf-8')", False),
        ("file = path.open()", True),
        ("door.open()", False),
        ("file = path.open('w', newline='')", True),
        ("path.open('rb')", False),
        ("path.open(mode='rb')", False),
        ("file = open(path)", True),
        ("open(path, 'ab')", False),
        ("open(path, encoding='utf-8')", False),
        ("os.open(path, os.O_RDONLY)", False),
        ("os.fdopen(fd, 'w')", True),
        ("os.fdopen(fd, 'wb')", False),
        ("NamedTemporaryFile()", False),
        ("NamedTemporaryFile('w')", True),
        ("subprocess.run(command, text=True)", True),
        ("subprocess.run(command, text=True, encoding='utf-8')", False),
        ("subprocess.run(command, capture_output=True)", False),
    ],
)
def test_the_check_finds_what_it_looks_for(source: str, found: bool) -> None:
    assert bool(list(calls(source))) is found
