"""Releases of versions with code: what changed is shown, and nothing but what was released runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from app.model.code.permission import code_sha256
from app.model.code.request import HandlerRequest
from app.model.compat import breaking_changes
from app.model.errors import BundleError, NothingToChange, ReleaseRejected
from app.model.manifest_file import read_manifest
from app.registry.code_diff import MOST_LINES, code_changes
from app.registry.loading import ModelSource
from app.registry.release import Release, read_release, write_release
from app.registry.repository import Repository
from app.registry.service import ModelService
from tests import task_models
from tests.handler_bundles import PLAIN, with_handler

TRIPLE = PLAIN.replace("* 2", "* 3")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two versions, of which the first doubles and the second triples."""
    with_handler(tmp_path / "m" / "1")
    with_handler(tmp_path / "m" / "2", TRIPLE, files={"words.txt": b"a\n"})
    return tmp_path / "m"


@pytest.fixture
def repository(directory: Path) -> Repository:
    return Repository(directory, allow_code=True)


def sum_of(directory: Path, version: str) -> str:
    return code_sha256(read_manifest(directory / version / "manifest.json"))


def answers(service: ModelService) -> bytes:
    return service.current().answer([HandlerRequest(b'{"value": 1}')])[0].body


def replace_code(directory: Path, version: str, source: str) -> None:
    shutil.rmtree(directory / version)
    with_handler(directory / version, source)


def test_the_sum_of_the_code_is_recorded_and_read_again(repository: Repository) -> None:
    directory = repository.directory
    one, two = sum_of(directory, "1"), sum_of(directory, "2")
    assert repository.promote("1").after.code == {"1": one}
    assert repository.canary("2", 0.5).after.code == {"1": one, "2": two}
    assert read_release(directory) == Release("1", "2", "canary", 0.5, {"1": one, "2": two})
    assert repository.rollback().after.code == {"1": one}
    assert repository.promote("2").after.code == {"2": two}
    assert repository.rollback().after == Release("1", code={"1": one})
    assert [change.after.code for change in repository.history()][-1] == {"1": one}


def test_a_release_without_code_is_written_as_before(tmp_path: Path) -> None:
    write_release(tmp_path, Release("1"))
    assert 'stable = "1"\n' in (tmp_path / "release.toml").read_text()
    assert "code" not in (tmp_path / "release.toml").read_text()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('code = {"1" = "x"}', 'must be "sha256:" and 64 hexadecimal digits'),
        (f'code = {{"2" = "sha256:{"0" * 64}"}}', "code names version 2, which is not one of the"),
        ("code = 1", "code must be"),
    ],
)
def test_a_record_that_is_none_is_refused(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "release.toml").write_text(f'{line}\nstable = "1"\n')
    with pytest.raises(BundleError) as refused:
        read_release(tmp_path)
    assert said in str(refused.value)


def test_a_worker_runs_no_other_code_than_was_released(repository: Repository) -> None:
    directory = repository.directory
    repository.promote("1")
    replace_code(directory, "1", TRIPLE)
    service = ModelService(ModelSource(directory, allow_code=True))
    service.load()
    assert "was replaced after it was promoted, and doesn't run" in service.fault
    assert service.loaded is None
    repository.promote("1")  # which shows what changed
    service.refresh()
    assert answers(service) == b"3"
    with pytest.raises(NothingToChange):
        repository.promote("1")


def served_by(directory: Path) -> ModelService:
    service = ModelService(ModelSource(directory, allow_code=True))
    service.load()
    return service


def test_code_runs_without_a_release_where_it_is_allowed(directory: Path) -> None:
    assert answers(served_by(directory)) == b"3"


def test_a_release_that_was_written_by_hand_runs_no_code_before_it_is_promoted(
    repository: Repository,
) -> None:
    write_release(repository.directory, Release("1"))
    service = served_by(repository.directory)
    assert service.loaded is None
    assert "of which the release has no record, so it doesn't run" in service.fault
    assert repository.promote("1").after.code == {"1": sum_of(repository.directory, "1")}
    service.refresh()
    assert answers(service) == b"2"


def test_a_version_that_was_promoted_without_code_gets_none_afterwards(tmp_path: Path) -> None:
    directory = tmp_path / "m"
    task_models.regression(directory / "1")
    repository = Repository(directory, allow_code=True)
    repository.promote("1")
    assert served_by(directory).loaded is not None
    shutil.rmtree(directory / "1")
    with_handler(directory / "1")
    service = served_by(directory)
    assert service.loaded is None
    assert "Promote the version" in service.fault


def test_a_change_beside_a_version_records_no_code_of_it(repository: Repository) -> None:
    directory = repository.directory
    write_release(directory, Release("1"))
    assert repository.canary("2", 0.5).after.code == {"2": sum_of(directory, "2")}
    assert served_by(directory).loaded is None


def test_a_worker_that_runs_goes_on_with_what_was_released(repository: Repository) -> None:
    repository.promote("1")
    service = ModelService(ModelSource(repository.directory, allow_code=True))
    service.load()
    replace_code(repository.directory, "1", TRIPLE)
    service.refresh()
    assert answers(service) == b"2"
    assert "was replaced after it was promoted" in service.fault


class Remembering:
    def remember(self, model: str, version: str) -> None: ...

    def recall(self, model: str) -> str | None:
        return "1"


def test_a_version_that_is_fallen_back_to_runs_no_other_code_either(
    repository: Repository,
) -> None:
    repository.promote("1")
    repository.promote("2")
    (repository.directory / "2" / "handler.py").unlink()
    source = ModelSource(repository.directory, allow_code=True)
    service = ModelService(source, version_store=Remembering())
    service.load()
    assert "Falling back to version 1" in service.fault
    replace_code(repository.directory, "1", TRIPLE)
    service = ModelService(source, version_store=Remembering())
    service.load()
    assert service.loaded is None


def test_where_the_release_can_not_be_read_no_code_runs(repository: Repository) -> None:
    repository.promote("1")
    source = ModelSource(repository.directory, allow_code=True)
    replace_code(repository.directory, "1", TRIPLE)
    (repository.directory / "release.toml").write_text("no release")
    service = ModelService(source, version_store=Remembering())
    service.load()
    assert service.loaded is None


def test_a_version_that_was_never_released_runs_no_code_where_others_were(
    repository: Repository,
) -> None:
    repository.promote("2")
    (repository.directory / "2" / "handler.py").unlink()
    source = ModelSource(repository.directory, allow_code=True)
    service = ModelService(source, version_store=Remembering())  # served before the first release
    service.load()
    assert service.loaded is None


def test_a_version_whose_code_changed_is_not_rolled_back_to(repository: Repository) -> None:
    repository.promote("1")
    repository.promote("2")
    replace_code(repository.directory, "1", TRIPLE)
    with pytest.raises(ReleaseRejected, match="was replaced after it was promoted"):
        repository.rollback()
    assert repository.release().stable == "2"


def test_a_handler_can_be_no_shadow(repository: Repository) -> None:
    repository.promote("1")
    with pytest.raises(ReleaseRejected, match="the answers of a handler are its own; use a canary"):
        repository.shadow("2")


def test_callers_of_a_handler_keep_one(directory: Path, repository: Repository) -> None:
    repository.promote("1")
    bare = task_models.regression(directory / "3")
    around = with_handler(task_models.regression(directory / "4"), requests=())
    manifests = [read_manifest(each / "manifest.json") for each in (bare, around)]
    assert breaking_changes(manifests[1], manifests[0])[0].startswith("It has no handler")
    assert breaking_changes(manifests[0], manifests[1])[0].startswith("It has a handler")
    with pytest.raises(ReleaseRejected, match="The task is 'regression'"):
        repository.promote("3")


def test_what_changed_of_the_code_is_shown(directory: Path) -> None:
    lines = code_changes(directory, "1", "2")
    assert "--- 1/handler.py" in lines
    assert '-        return request.json()["value"] * 2' in lines
    assert '+        return request.json()["value"] * 3' in lines
    assert lines[-3:] == ["+++ 2/words.txt", "@@ -0,0 +1 @@", "+a"]
    assert code_changes(directory, "1", "1") == []
    assert code_changes(directory, None, "1")[:2] == ["--- /dev/null", "+++ 1/handler.py"]


def test_what_is_shown_is_bounded_and_no_bytes(directory: Path) -> None:
    long = "\n".join([f"# {'x' * 1000}", *["# x"] * (3 * MOST_LINES), PLAIN])
    with_handler(directory / "3", long, files={"weights.pkl": b"\x80\x00", "big.txt": b"x" * 2**19})
    lines = code_changes(directory, "1", "3")
    assert len(lines) == MOST_LINES + 1
    assert max(map(len, lines)) <= 300
    assert lines[:2] == ["Files /dev/null and 3/big.txt differ", "--- 1/handler.py"]
    assert "Files /dev/null and 4/weights.pkl differ" in code_changes(
        directory, "1", str(with_handler(directory / "4", files={"weights.pkl": b"\x80\x00"}).name)
    )


@pytest.fixture
def model(directory: Path, make_app: Callable[..., Flask]) -> Iterator[Callable[..., Result]]:
    runner = make_app(MODEL__PATH=str(directory), MODEL__ALLOW_CODE="m").test_cli_runner()
    yield lambda *arguments: runner.invoke(args=["model", *arguments])


def test_promote_prints_it_and_diff_and_show_do(model: Callable[..., Result]) -> None:
    assert "Code that changes:\n--- 2/handler.py\n+++ 1/handler.py" in model("promote", "1").output
    promoted = model("promote", "2", "--json")
    assert 'value"] * 3' in promoted.stderr
    assert json.loads(promoted.stdout)["to"]["code"].keys() == {"2"}
    assert "* 3" in model("diff", "1", "2").output
    assert "The answers of a handler are its own." in model("diff", "1", "2").output
    assert "handler.py (lantern)" in model("show", "2").output
    verified = model("verify", "2")
    assert verified.exit_code == 0, verified.output
    assert "a handler." in verified.output
