"""The peers are programs of their own, pinned exactly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.measures import peers_of
from benchmarks.peers import read_pins
from benchmarks.servers import PEER_NAMES, PEERS, peer
from tests.conftest import ROOT
from tests.test_architecture import imports, within

PROGRAMS = [
    *(PEERS / name / "app.py" for name in PEER_NAMES if name != "litserve"),
    PEERS / "litserve" / "customers.py",
]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(PEERS)))
def test_a_peer_compiles_and_knows_nothing_of_lantern(path: Path) -> None:
    compile(path.read_text(), str(path), "exec")
    assert not [found for found in imports(path) if within(found, "app", "benchmarks", "training")]


@pytest.mark.parametrize("name", PEER_NAMES)
def test_a_peer_is_pinned_and_shares_lanterns_versions(name: str) -> None:
    pins = read_pins(PEERS / name / "requirements.txt")
    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in pins.values())
    assert pins.keys() & {"gunicorn", name}, "the server itself"
    ours = read_pins(ROOT / "requirements.txt")
    shared = pins.keys() & ours.keys()
    assert shared & {"onnxruntime", "torch"}
    assert {key: pins[key] for key in shared} == {key: ours[key] for key in shared}


def test_a_part_has_the_peers_that_it_needs_and_no_more() -> None:
    assert peers_of(["predict"]) == list(PEER_NAMES)
    assert peers_of(["check", "connections"]) == ["tuned", "handtuned", "granian"]
    assert peers_of(["overload", "features"]) == []


def test_a_peer_has_two_workers_and_a_port_of_its_own() -> None:
    for name in PEER_NAMES:
        program = peer(name)
        assert [argument for argument in program.arguments if "{port}" in argument]
        assert "2" in program.arguments or name == "litserve"


def test_comments_are_no_pins_and_files_taken_in_have_some(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("# why\norjson==3.13.0  # fast\n\n-r more.txt\n")
    (tmp_path / "more.txt").write_text("Flask==3.1.3\n")
    assert read_pins(tmp_path / "requirements.txt") == {"orjson": "3.13.0", "Flask": "3.1.3"}


@pytest.mark.parametrize("name", ["mlserver", "kserve"])
def test_a_server_of_the_protocol_is_pinned_and_runs_lanterns_runtime(name: str) -> None:
    path = PEERS / name / "app.py"
    compile(path.read_text(), str(path), "exec")
    assert not [found for found in imports(path) if within(found, "app", "benchmarks", "training")]
    pins = read_pins(PEERS / name / "requirements.txt")
    assert pins["onnxruntime"] == read_pins(ROOT / "requirements.txt")["onnxruntime"]
    assert name in pins
