"""The rooms of `app/` import one way: no two rooms, and no two modules, need each other.

Imports inside functions and under ``TYPE_CHECKING`` count, too: where two modules need each other's
names, a third thing is missing between them.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

MAY_IMPORT = {
    "worker": set(),
    "documents": set(),
    "model": {"documents", "version"},
    "registry": {"documents", "model", "version"},
    "inference": {"model", "registry"},
    "packing": {"documents", "model", "registry", "version"},
    "protocols": {"documents", "model", "inference"},
    "access": {"documents", "model", "settings", "version"},
    "settings": {"documents", "model"},
    "telemetry": {"documents", "model", "registry", "inference", "access", "settings"},
    "http": {
        *("model", "registry", "inference", "protocols", "access", "settings", "telemetry"),
        *("version", "worker"),
    },
    "blueprints": {
        *("http", "model", "registry", "protocols", "access", "telemetry", "version"),
    },
    "server": {"http", "model", "settings", "telemetry", "worker"},
    "cli": {
        *("http", "registry", "packing", "documents", "model", "access", "settings", "version"),
        "server",
    },
    "__main__": {"__init__", "cli", "settings", "version"},
    "client": set(),
    "version": set(),
    "__init__": {"blueprints", "cli", "http", "telemetry", "settings", "version"},
}
"""By room, or module beside the rooms: the others that it may know."""
MAY_IMPORT_OF_PACKING = {
    "app.packing.graphs": {"source"},
    "app.packing.programs": {"source", "rows", "network"},
    "app.packing.huggingface": {
        *("source", "description", "statement", "step_tables", "network", "programs"),
        "json_files",
    },
}
"""By room within `packing`: the modules beside it that it may know."""
WEB = ("flask", "flasgger", "werkzeug", "gunicorn")
NO_WEB = ("documents", "model", "registry", "inference", "packing")
MUST_NOT_KNOW = {
    **dict.fromkeys(NO_WEB, (*WEB, "marshmallow")),
    "protocols": WEB,
    "access": WEB,
    "telemetry": ("flask", "flasgger", "werkzeug"),
    "worker": ("flask", "flasgger", "werkzeug", "marshmallow", "torch", "onnxruntime"),
    "http": ("torch", "onnxruntime"),
    "blueprints": ("torch", "onnxruntime"),
}
"""By room: the libraries that it must not know."""

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "app").rglob("*.py"))
}


def imports(path: Path) -> Iterator[str]:
    """Return the full names of what a module of this project imports, wherever in it."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: package.count(".") + 2 - node.level]
            base = ".".join([*(parent if node.level else ()), *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def modules_imported(name: str) -> set[str]:
    """Return the modules of `app` that one of them imports; of a package only what it names."""
    found = set()
    for each in imports(MODULES[name]):
        if within(each, "app"):
            found.add(each if each in MODULES else each.rpartition(".")[0])
    return found - {name}


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def room_of(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_it_may_know(name: str) -> None:
    room, names = room_of(name), set(imports(MODULES[name]))
    assert not [n for n in names if within(n, "training", "benchmarks", "trials", "tests")]
    assert not [n for n in names if within(n, *MUST_NOT_KNOW.get(room, ()))]
    allowed = [f"app.{other}" for other in {room, *MAY_IMPORT[room]}]
    known = {"app"} if "__init__" in MAY_IMPORT[room] else set()
    others = modules_imported(name) - known
    assert not [other for other in others if not within(other, *allowed)]
    if room == "client":
        libraries = {"requests", "urllib3", *sys.stdlib_module_names}
        assert {n.partition(".")[0] for n in names} <= libraries


@pytest.mark.parametrize("room", MAY_IMPORT_OF_PACKING)
def test_a_room_within_packing_knows_no_more_of_it_than_it_needs(room: str) -> None:
    names = [name for name in MODULES if within(name, room)]
    assert len(names) > 1
    known = (room, *(f"app.packing.{each}" for each in MAY_IMPORT_OF_PACKING[room]))
    for name in names:
        beside = [other for other in modules_imported(name) if within(other, "app.packing")]
        assert not [other for other in beside if not within(other, *known)]
        if room == "app.packing.graphs":
            assert not [n for n in imports(MODULES[name]) if within(n, "torch", "onnxscript")]


@pytest.mark.parametrize("name", MODULES)
def test_imports_inside_the_package_are_relative(name: str) -> None:
    """It has another name where it is installed."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            assert not [alias for alias in node.names if within(alias.name, "app")]
        elif isinstance(node, ast.ImportFrom):
            assert node.level or not within(str(node.module), "app")


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_no_modules_need_each_other() -> None:
    assert cycle({name: modules_imported(name) for name in MODULES}) == []


def test_no_rooms_need_each_other() -> None:
    rooms: dict[str, set[str]] = {}
    for name in MODULES:
        others = {room_of(other) for other in modules_imported(name)}
        rooms.setdefault(room_of(name), set()).update(others - {room_of(name)})
    assert cycle(rooms) == []


def test_a_cycle_of_imports_is_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_the_application_is_made_without_torch() -> None:
    """It costs a second and 150 MB that a worker with ONNX Runtime never needs."""
    program = "import sys, wsgi; print('torch' in sys.modules, 'onnxruntime' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "False True\n"
