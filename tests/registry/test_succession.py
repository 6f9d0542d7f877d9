"""Without a release a version takes over by itself, unless that could break callers."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.model import manifest_file
from app.model.errors import BundleError, ReleaseRejected
from app.model.manifest import Manifest
from app.model.network import save_checkpoint
from app.registry import succession as successions
from app.registry.loading import ModelSource
from app.registry.release import FILE_NAME, Release, release_in_force
from app.registry.repository import Repository
from app.registry.service import ModelService
from app.registry.succession import read_succession
from tests.damage import edit_manifest
from tests.small_model import make_network

Edit = Callable[[dict[str, Any]], object]

BREAKING: list[tuple[Edit, str]] = [
    (lambda m: m["features"][0].update(name="years"), "The feature 'age' "),
    (lambda m: m["features"][1].update(nullable=False), "'income' no longer accepts null"),
    (lambda m: m["features"][2].update(unit="a week"), "The unit of 'visits' changes from"),
    (lambda m: m["classes"].reverse(), "The classes are in another order"),
    (
        lambda m: [f.update(column=1 - f["column"]) for f in m["features"][:2]],
        "The columns of the input 'features' moved",
    ),
    (lambda m: m.update(name="churn"), "The model's name changes from 'example' to 'churn'"),
]


@pytest.fixture
def two(versions: Path) -> Path:
    """The versions 1 and 2, of one schema; 3 waits beside their directory."""
    (versions / "3").rename(versions.parent / "3")
    return versions


def add_third(directory: Path, edit: Edit) -> None:
    """Put version 3, edited, into the directory of ``two``."""
    edit_manifest(directory.parent / "3", edit)
    (directory.parent / "3").rename(directory / "3")


def served(service: ModelService) -> str:
    return service.current().version


@pytest.mark.parametrize(("edit", "said"), BREAKING, ids=[said for _, said in BREAKING])
def test_a_version_that_could_break_callers_waits_in_each_worker_and_after_a_restart(
    two: Path,
    edit: Edit,
    said: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("lantern"), "propagate", True)
    worker = ModelService(ModelSource(two))
    assert (served(worker), worker.fault) == ("2", "")
    add_third(two, edit)
    for _ in range(3):
        worker.refresh()
    started_later = ModelService(ModelSource(two))
    for service in (worker, started_later):
        assert served(service) == "2"
        assert said in service.fault
        assert "model promote 3 --allow-schema-change`" in service.fault
        assert "model promote 2`" in service.fault
    errors = {id(record): record for record in caplog.records if record.levelno >= logging.ERROR}
    assert len(errors) == 2  # one a worker
    assert all(said in record.__dict__["reason"] for record in errors.values())


def test_promote_and_the_service_judge_alike_and_promote_accepts_it(two: Path) -> None:
    add_third(two, BREAKING[0][0])
    service = ModelService(ModelSource(two))
    repository = Repository(two)
    assert repository.release() == Release("2")
    with pytest.raises(ReleaseRejected) as caught:
        repository.promote("3")
    assert all(reason in repository.held_back()["3"] for reason in caught.value.reasons)
    change = repository.promote("3", allow_schema_change=True)
    assert (change.before, change.after) == (Release("2"), Release("3"))
    service.refresh()
    assert (served(service), service.fault) == ("3", "")
    assert not repository.held_back()


def test_to_promote_the_version_that_serves_keeps_it_and_ends_the_fault(two: Path) -> None:
    add_third(two, BREAKING[0][0])
    service = ModelService(ModelSource(two))
    assert service.fault
    Repository(two).promote("2")
    service.refresh()
    assert (served(service), service.fault) == ("2", "")


def test_a_version_that_fits_takes_over_past_one_that_is_held_back(versions: Path) -> None:
    edit_manifest(versions / "2", BREAKING[0][0])
    assert read_succession(versions) == successions.Succession(("1", "3"))
    assert served(ModelService(ModelSource(versions))) == "3"


def test_each_version_is_compared_with_the_one_that_it_takes_over_from(versions: Path) -> None:
    edit_manifest(versions / "1", lambda m: m["features"][1].update(nullable=False))
    edit_manifest(versions / "3", lambda m: m["features"][1].update(nullable=False))
    succession = read_succession(versions)
    assert succession.versions == ("1", "2")  # 1 and 3 are alike, and callers of 2 send null
    assert list(succession.held_back) == ["3"]


def test_a_name_in_the_settings_lets_a_version_of_another_name_take_over(two: Path) -> None:
    add_third(two, lambda m: m.update(name="churn"))
    assert release_in_force(two) == Release("2")
    assert release_in_force(two, name="shop") == Release("3")
    service = ModelService(ModelSource(two, name="fraud"))
    assert (served(service), service.fault) == ("3", "")


def test_the_advice_is_for_the_model_that_the_settings_name(two: Path) -> None:
    """Without a name a command would be for the first of several models."""
    add_third(two, BREAKING[0][0])
    for name, chosen in (("", ""), ("fraud", " --model fraud")):
        service = ModelService(ModelSource(two, name=name))
        service.load()
        assert f"model promote 3{chosen} --allow-schema-change` to serve it" in service.fault
        assert f"model promote 2{chosen}` to keep version 2." in service.fault


def test_nobody_takes_over_while_the_manifest_of_a_higher_version_can_not_be_read(
    two: Path,
) -> None:
    service = ModelService(ModelSource(two))
    service.load()
    shutil.copytree(two / "2", two / "3")
    (two / "3" / "manifest.json").write_text("{")
    service.refresh()
    assert served(service) == "2"
    assert "manifest.json is not JSON" in service.fault
    with pytest.raises(BundleError, match="not JSON"):
        read_succession(two)
    with pytest.raises(ReleaseRejected, match="Nothing is known of the stable version"):
        Repository(two).promote("1")


def test_a_lower_version_whose_manifest_can_not_be_read_is_no_obstacle(versions: Path) -> None:
    (versions / "2" / "manifest.json").write_text("{")
    assert read_succession(versions).versions == ("1", "3")


def test_checkpoints_without_a_manifest_follow_each_other_and_no_bundle(two: Path) -> None:
    for version in ("8", "9"):
        (two / version).mkdir()
        save_checkpoint(make_network(), version, two / version / "model.pt")
    succession = read_succession(two)
    assert succession.versions == ("1", "2")
    assert "they can't be compared" in succession.held_back["9"]
    assert "promote 9" not in succession.held_back["9"]  # which it would refuse
    assert "promote 2`" in succession.held_back["9"]
    for version in ("1", "2"):
        shutil.rmtree(two / version)
    assert read_succession(two).versions == ("8", "9")


def test_a_manifest_is_read_again_only_when_it_was_replaced(
    versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = manifest_file.read_manifest

    def counted(path: Path) -> Manifest:
        reads.append(path.parent.name)
        return read(path)

    monkeypatch.setattr(manifest_file, "read_manifest", counted)
    for _ in range(3):
        assert read_succession(versions).stable == "3"
    assert sorted(reads) == ["1", "2", "3"]
    edit_manifest(versions / "2", lambda m: m.update(description="Another."))
    read_succession(versions)
    assert sorted(reads) == ["1", "2", "2", "3"]


def test_rollback_goes_back_through_the_versions_that_took_over_by_themselves(
    versions: Path,
) -> None:
    repository = Repository(versions)
    change = repository.rollback("too slow")
    assert (change.before, change.after) == (Release("3"), Release("2"))
    assert repository.rollback().after == Release("1")
    with pytest.raises(ReleaseRejected, match="no version before 1"):
        repository.rollback()
    repository.promote("3")
    assert repository.rollback().after == Release("1")


def test_rollback_passes_over_a_version_that_was_held_back(versions: Path) -> None:
    edit_manifest(versions / "2", BREAKING[0][0])
    assert Repository(versions).rollback().after == Release("1")


def test_a_rollback_is_never_undone_by_the_next_one(versions: Path) -> None:
    repository = Repository(versions)
    repository.rollback()
    shutil.rmtree(versions / "3")  # the one that was left, without which nothing tells of 1
    with pytest.raises(ReleaseRejected, match="no version before 2"):
        repository.rollback()


def test_a_version_of_settings_is_served_whatever_its_schema(two: Path) -> None:
    add_third(two, BREAKING[0][0])
    service = ModelService(ModelSource(two, version="3"))
    assert (served(service), service.fault) == ("3", "")
    assert not (two / FILE_NAME).exists()
