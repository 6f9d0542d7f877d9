"""Code of a bundle runs only where the settings allow it, and only what a release records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from app.model.code.permission import code_sha256
from app.model.errors import BundleError, ReleaseRejected
from app.model.manifest_file import read_manifest
from app.registry.loading import ModelSource, load_model
from app.registry.repository import Repository
from app.registry.verification import verify
from app.settings import SettingsError, load_settings
from tests.handler_bundles import PLAIN, with_handler

SAID = (
    "Version 1 of m has code of its own, handler.py, and model.allow_code doesn't allow it. If you "
    'trust whoever made the bundle, set model.allow_code = ["m"] (or LANTERN_MODEL__ALLOW_CODE=m).'
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory of one version, whose handler leaves a trace when it is executed."""
    trace = tmp_path / "trace"
    with_handler(tmp_path / "m" / "1", f"open({str(trace)!r}, 'a').close()\n{PLAIN}")
    trace.unlink()
    return tmp_path / "m"


def was_executed(model: Path) -> bool:
    return (model.parent / "trace").exists()


@pytest.mark.parametrize("allowed", [False, (), ("n",), ("M",)])
def test_without_leave_no_code_is_executed_and_the_error_names_the_setting(
    allowed: Any, model: Path
) -> None:
    with pytest.raises(BundleError) as refused:
        load_model(ModelSource(model / "1", allow_code=allowed))
    assert str(refused.value) == SAID
    report = verify(model, "1", allow_code=allowed)
    assert report.problems == (SAID,)
    with pytest.raises(ReleaseRejected) as rejected:
        Repository(model, allow_code=allowed).promote("1")
    assert rejected.value.reasons == (SAID,)
    assert not was_executed(model)


@pytest.mark.parametrize("allowed", [True, ("m",), ("n", "m")])
def test_with_leave_it_is(allowed: Any, model: Path) -> None:
    load_model(ModelSource(model / "1", allow_code=allowed))
    assert was_executed(model)
    report = verify(model, "1", allow_code=allowed)
    assert report.passed
    assert [each.name for each in report.runtimes] == ["handler"]
    assert report.runtimes[0].latency is not None


def test_it_is_allowed_by_the_name_in_the_settings(model: Path) -> None:
    with pytest.raises(BundleError, match="Version 1 of own has code"):
        load_model(ModelSource(model / "1", name="own", allow_code=("m",)))
    load_model(ModelSource(model / "1", name="own", allow_code=("own",)))


def test_without_leave_it_can_still_be_read(model: Path) -> None:
    manifest = Repository(model).manifest("1")
    assert manifest.handler is not None
    assert Repository(model).summaries(None)[0].problem == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("digits", ("digits",)),
        ("a, b", ("a", "b")),
        ('["a", "b"]', ("a", "b")),
        ("[]", ()),
    ],
)
def test_the_setting_is_true_false_or_names(text: str, value: object) -> None:
    settings = load_settings({"LANTERN_MODEL__ALLOW_CODE": text})
    assert settings.model.allow_code == value


@pytest.mark.parametrize("text", ["[1]", '["a", ""]', "[true"])
def test_what_is_none_of_them_is_refused(text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({"LANTERN_MODEL__ALLOW_CODE": text})
    assert "must be true, false, or a list of the names of models" in str(refused.value)


def test_the_sum_of_the_code_changes_with_every_file_and_with_nothing_else(tmp_path: Path) -> None:
    files = {"words.txt": b"a"}
    path = with_handler(tmp_path / "m" / "1", files=files)
    first = read_manifest(path / "manifest.json")
    assert code_sha256(first).startswith("sha256:")
    assert code_sha256(replace(first, description="x")) == code_sha256(first)
    for changed in (
        with_handler(tmp_path / "m" / "2", files={"words.txt": b"b"}),
        with_handler(tmp_path / "m" / "3", files={"words2.txt": b"a"}),
        with_handler(tmp_path / "m" / "4", PLAIN + "\n", files=files),
        with_handler(tmp_path / "m" / "5"),
    ):
        assert code_sha256(read_manifest(changed / "manifest.json")) != code_sha256(first)


def test_what_a_release_does_not_record_does_not_run(model: Path) -> None:
    recorded = code_sha256(read_manifest(model / "1" / "manifest.json"))
    load_model(ModelSource(model / "1", allow_code=True, code=recorded))
    with pytest.raises(BundleError, match="was replaced after it was promoted, and doesn't run"):
        load_model(ModelSource(model / "1", allow_code=True, code="sha256:" + "0" * 64))
