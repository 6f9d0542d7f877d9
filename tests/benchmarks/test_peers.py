"""The peers are programs of their own, pinned exactly."""

from __future__ import annotations

import re

import pytest

from benchmarks.peers import parse_pins
from benchmarks.servers import PEER_NAMES, PEERS
from tests.conftest import ROOT
from tests.test_architecture import imports, within


@pytest.mark.parametrize("name", PEER_NAMES)
def test_a_peer_compiles_and_knows_nothing_of_lantern(name: str) -> None:
    path = PEERS / name / "app.py"
    compile(path.read_text(), str(path), "exec")
    assert not [found for found in imports(path) if within(found, "app", "benchmarks", "training")]


@pytest.mark.parametrize("name", PEER_NAMES)
def test_a_peer_is_pinned_and_shares_lanterns_versions(name: str) -> None:
    pins = parse_pins((PEERS / name / "requirements.txt").read_text())
    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in pins.values())
    ours = parse_pins((ROOT / "requirements.txt").read_text())
    shared = pins.keys() & ours.keys()
    assert "gunicorn" in shared
    assert {key: pins[key] for key in shared} == {key: ours[key] for key in shared}


def test_comments_are_no_pins() -> None:
    assert parse_pins("# why\norjson==3.13.0  # fast\n\n") == {"orjson": "3.13.0"}
