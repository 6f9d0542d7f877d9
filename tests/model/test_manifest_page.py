"""docs/manifest.md says of every member what it is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from app.model.code.declaration import HandlerSpec
from app.model.errors import BundleError
from app.model.features import Feature
from app.model.manifest import Manifest, Target, TaskName, Tolerance
from app.model.manifest_file import read_manifest, write_manifest
from app.model.signature import DTYPES, OutputSpec, Role
from app.model.steps.declaration import ImageStep, Resize, Size, TextStep, WordsStep
from tests.conftest import ROOT
from tests.model.test_manifest import EACH, HANDLER, OF_STEPS

PAGE = (ROOT / "docs" / "manifest.md").read_text()
EXAMPLE: dict[str, Any] = json.loads(PAGE.partition("```json\n")[2].partition("```")[0])


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def named_in(text: str) -> set[str]:
    """Return the names at the beginning of the rows of the tables in ``text``."""
    rows = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def names_of(struct: Any) -> set[str]:
    return {field.name for field in msgspec.structs.fields(struct)}


def written(manifest: Manifest, directory: Path) -> dict[str, Any]:
    write_manifest(manifest, directory / "manifest.json")
    document: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    return document


def test_the_example_is_a_manifest_that_is_written_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(EXAMPLE))
    manifest = read_manifest(path)
    again = written(manifest, tmp_path)
    assert list(again) == list(EXAMPLE)
    assert read_manifest(path) == manifest


def test_the_page_has_every_member_and_no_other(tmp_path: Path) -> None:
    every = [*EACH.values(), *OF_STEPS.values(), HANDLER]
    members = {name for each in every for name in written(each, tmp_path)}
    members |= {"preprocessing", "reference"}
    assert named_in(section("Members")) == members
    assert named_in(section("Features")) == names_of(Feature)
    assert names_of(OutputSpec) | {*get_args(Role)} == named_in(section("Tensors"))
    assert named_in(section("Tasks")) == {*get_args(TaskName)}
    images, texts, words = (
        section("Steps").partition(f"### {kind}\n")[2].partition("\n### ")[0]
        for kind in ("An image", "A text", "Words")
    )
    assert named_in(images) == {"kind", *names_of(ImageStep)}
    assert named_in(texts) == {"kind", *names_of(TextStep)}
    assert named_in(words) == {"kind", *names_of(WordsStep)}
    for name in (*names_of(Resize), *names_of(Size)):
        assert f"`{name}`" in images
    assert named_in(section("The handler")) == names_of(HandlerSpec)
    for name in (*names_of(Target), *names_of(Tolerance), "sha256", "size"):
        assert f"`{name}`" in section("Members")
    for datatype in DTYPES:
        assert f"`{datatype}`" in section("Tensors") or "INT" in datatype


@pytest.mark.parametrize("member", sorted(re.findall(r"^\| \*\*`(\w+)`", section("Members"), re.M)))
def test_the_members_in_bold_are_required_and_no_others(member: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({name: EXAMPLE[name] for name in EXAMPLE if name != member}))
    with pytest.raises(BundleError, match=member):
        read_manifest(path)


def test_the_members_that_are_not_bold_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    bold = set(re.findall(r"^\| \*\*`(\w+)`", section("Members"), re.MULTILINE))
    least = {name: EXAMPLE[name] for name in bold}
    path.write_text(json.dumps(least | {"task": "tensors", "outputs": EXAMPLE["outputs"][1:]}))
    assert read_manifest(path).name == "flats"
