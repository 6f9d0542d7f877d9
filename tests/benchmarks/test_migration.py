"""What TorchServe's users have is sent to every server alike, and answered alike."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.model.steps.declaration import Sample
from app.registry.loading import ModelSource, load_model
from benchmarks.figures import Figures
from benchmarks.migration import cases, part
from benchmarks.migration.cases import CASES, SENTENCES, Case
from benchmarks.migration.lantern import pack_steps
from benchmarks.migration.part import CONNECTIONS, alike, migration_parts, part_of
from benchmarks.migration.peers import BENTOML, LITSERVE, NAMES, TORCHSERVE, path_of
from benchmarks.migration.targets import migration_rows
from benchmarks.peers import read_pins
from benchmarks.report import series_table
from benchmarks.servers import LANTERN, PEERS
from tests.conftest import ROOT
from tests.test_architecture import imports, within

PROGRAMS = [
    *sorted((PEERS / "torchserve").glob("*.py")),
    PEERS / "steps.py",
    PEERS / "litserve" / "app.py",
    PEERS / "bentoml" / "app.py",
]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(PEERS)))
def test_a_peer_compiles_and_knows_nothing_of_lantern(path: Path) -> None:
    compile(path.read_text(), str(path), "exec")
    assert not [found for found in imports(path) if within(found, "app", "benchmarks", "training")]


@pytest.mark.parametrize("name", NAMES)
def test_a_peer_is_pinned_and_shares_lanterns_versions(name: str) -> None:
    pins = read_pins(PEERS / name.lower() / "requirements.txt")
    ours = read_pins(ROOT / "requirements.txt")
    assert name.lower() in pins
    assert {"pillow", "tokenizers"} <= pins.keys()
    shared = pins.keys() & ours.keys()
    assert {key: pins[key] for key in shared} == {key: ours[key] for key in shared}


@pytest.mark.parametrize("name", ["digits", SENTENCES])
def test_the_steps_of_a_case_answer_as_its_archive_does(name: str, tmp_path: Path) -> None:
    case = CASES[name](tmp_path)
    model = load_model(ModelSource(pack_steps(case, tmp_path / "packed") / "1"))
    assert model.classes == case.labels
    assert model.manifest.top == case.top
    if name == "digits":
        expected = json.loads((cases.ARCHIVE / "torchserve_answers.json").read_text())
        found = model.run(model.steps.encode(samples(case)))["probabilities"]  # type: ignore[union-attr]
        for row, answer in zip(found, expected, strict=True):
            best = {case.labels[i]: float(row[i]) for i in np.argsort(-row)[: case.top]}
            assert list(best) == list(answer)
            assert best == pytest.approx(answer, abs=1e-6)


def samples(case: Case) -> list[Sample]:
    return [Sample(image=body.read_bytes()) for body in case.bodies]


def test_photos_are_the_same_each_time_and_of_the_size_they_are_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    photos = cases.write_photos(tmp_path)
    again = cases.write_photos(tmp_path / "again")
    assert [each.read_bytes() for each in photos] == [each.read_bytes() for each in again]
    assert len({each.read_bytes() for each in photos}) == len(photos)
    for path in photos:
        with Image.open(path) as image:
            assert (image.format, image.size) == ("JPEG", (500, 400))


def test_an_archive_is_as_torchserve_takes_it(tmp_path: Path) -> None:
    for name in ("model.pt", "handler.py", "more.json"):
        (tmp_path / name).write_text(name)
    made = cases.write_archive(
        tmp_path / "model.mar",
        tmp_path / "model.pt",
        ["yes", "no"],
        tmp_path / "handler.py",
        tmp_path / "more.json",
    )
    with zipfile.ZipFile(made) as archive:
        model = json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]
        assert {"handler.py", "model.pt", "more.json"} < set(archive.namelist())
        assert json.loads(archive.read("index_to_name.json")) == {"0": "yes", "1": "no"}
    assert (model["modelName"], model["handler"]) == ("model", "handler.py")
    assert model["serializedFile"] == "model.pt"


def test_answers_are_alike_up_to_what_decoders_and_sums_round() -> None:
    assert alike({"b": 0.3, "a": 0.70001}, {"a": 0.7, "b": 0.3})
    assert not alike({"a": 0.71, "b": 0.3}, {"a": 0.7, "b": 0.3})
    assert not alike({"a": 0.7, "c": 0.3}, {"a": 0.7, "b": 0.3})
    assert not alike({"a": 0.7}, {"a": 0.7, "b": 0.3})


def test_torchserve_and_lantern_are_asked_the_same(tmp_path: Path) -> None:
    case = Case("digits", tmp_path, tmp_path, (), 3, None, (), "image/png")  # type: ignore[arg-type]
    assert path_of(TORCHSERVE, case) == path_of(LANTERN, case) == "/predictions/digits"
    assert path_of(LITSERVE, case) == path_of(BENTOML, case) == "/predict"


def test_every_row_is_of_a_part_that_is_measured() -> None:
    rows = list(migration_rows())
    assert {row.part for row in rows} == set(migration_parts())
    assert len({row.what for row in rows}) == len(rows)


def test_the_table_has_medians_and_ranges_and_no_cell_for_what_was_not_measured() -> None:
    figures: Figures = {"a part": {LANTERN: {"rps": [900.0, 1000.0, 1100.0], "cpu_us": [50.0]}}}
    figures["another"] = {LANTERN: {"cpu_us": [20.0]}}
    head, _, *lines = series_table(figures).splitlines()
    assert "p99" not in head
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells == [
        ["a part", LANTERN, "1,000/s (900/s to 1,100/s)", "50.0 µs"],
        ["another", LANTERN, "", "20.0 µs"],
    ]


def test_the_load_sends_each_body_in_turn_on_so_many_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(part, "wrk", lambda *given, **named: seen.append((given, named)))
    bodies = (tmp_path / "a", tmp_path / "b")
    case = Case("digits", tmp_path, tmp_path, (), 3, None, bodies, "image/png")  # type: ignore[arg-type]

    class AServer:
        name = TORCHSERVE

    part.posting(case, CONNECTIONS[1])(AServer(), 2.0)  # type: ignore[arg-type]
    [(given, named)] = seen
    assert given[1:] == ("/predictions/digits", 2.0)
    assert named == {
        "whole": bodies,
        "headers": {"Content-Type": "image/png"},
        "connections": 16,
    }
    assert part_of("digits", 1) == "digits, 1 connection"
