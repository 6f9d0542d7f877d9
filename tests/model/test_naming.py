"""What a model is called: by its settings or its files, never by where it lies."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.model.naming import ModelName, as_name
from app.registry.release import Release, read_release, write_release
from tests.conftest import BUNDLE, ROOT
from tests.damage import edit_manifest
from tests.telemetry.test_metrics import samples

Make = Callable[..., Flask]


def place_bundle(directory: Path, name: str = "churn", version: str = "1") -> Path:
    """Copy the bundled model, with another name and version in its manifest."""

    def edit(manifest: dict[str, Any]) -> None:
        manifest.update(name=name, version=version)
        del manifest["files"]["model.pt"]  # which says its version, too

    shutil.copytree(BUNDLE, directory)
    edit_manifest(directory, edit)
    (directory / "model.pt").unlink()
    return directory


def bundle_behind_a_link(at: Path) -> Path:
    place_bundle(at / "rev-abc")
    (at / "current").symlink_to("rev-abc")
    return at / "current"


def versions_behind_a_link(at: Path) -> Path:
    place_bundle(at / "rev-abc" / "1")
    (at / "current").symlink_to("rev-abc")
    return at / "current"


def files_behind_links(at: Path) -> Path:
    """Lay them out as a volume of Kubernetes does."""
    place_bundle(at / "..2026_01_01")
    (at / "..data").symlink_to("..2026_01_01")
    for file in (at / "..data").iterdir():
        (at / file.name).symlink_to(Path("..data", file.name))
    return at


def linked_version(at: Path) -> Path:
    place_bundle(at / "store" / "f00")
    (at / "x").mkdir()
    (at / "x" / "1").symlink_to("../store/f00")
    return at / "x"


PLACES: dict[str, Callable[[Path], Path | str]] = {
    "one version": lambda at: place_bundle(at / "x" / "1"),
    "versions": lambda at: place_bundle(at / "x" / "1").parent,
    "relative": lambda at: os.path.relpath(place_bundle(at / "x" / "1"), ROOT),
    "trailing slash": lambda at: f"{place_bundle(at / 'x' / '1')}/",
    "dots": lambda at: f"{place_bundle(at / 'x' / '1')}/../../x/1/.",
    "bundle behind a link": bundle_behind_a_link,
    "versions behind a link": versions_behind_a_link,
    "files behind links": files_behind_links,
    "a version that is a link": linked_version,
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_model_is_called_what_its_manifest_says_wherever_it_lies(
    place: Callable[[Path], Path | str], tmp_path: Path, make_app: Make, sample: dict[str, float]
) -> None:
    client = make_app(MODEL__PATH=str(place(tmp_path))).test_client()
    assert names(client) == {"churn"}
    assert client.post("/models/churn/predict", json={"features": sample}).status_code == 200
    assert client.get("/models/x").status_code == 404


def names(client: Any) -> set[str]:
    """Return every name of the model that an application shows."""
    metrics = samples(client.get("/metrics").get_data(as_text=True))
    document = client.get("/openapi.json").get_json()
    path = document["paths"]["/models/{name}/predict"]["post"]["parameters"][0]
    shown = {label for _, labels in metrics for key, label in labels if key == "model"}
    shown |= {each["name"] for each in client.get("/models").get_json()["models"]}
    shown |= {client.get("/model/info").get_json()["name"], *path["schema"]["enum"]}
    shown.add(document["info"]["description"].split("**")[1])
    return shown


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"MODEL__NAME": "mine"}, "mine"),
        ({"MODELS__OURS": "PATH"}, "ours"),
    ],
)
def test_the_settings_name_a_model_before_its_manifest_does(
    settings: dict[str, str], name: str, tmp_path: Path, make_app: Make
) -> None:
    path = str(bundle_behind_a_link(tmp_path))
    if "MODEL__NAME" in settings:
        settings = settings | {"MODEL__PATH": path}
    settings = {key: value.replace("PATH", path) for key, value in settings.items()}
    assert names(make_app(**settings).test_client()) == {name}


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (("scores.pt",), "scores"),
        (("my scores.pt",), "my-scores"),
        (("1", "model.pt"), "model"),
        (("x", "1", ""), "model"),  # a directory with model.pt alone
    ],
)
def test_a_file_without_a_manifest_is_called_by_its_stem(
    place: tuple[str, ...], name: str, tmp_path: Path, make_app: Make, manifest: dict[str, Any]
) -> None:
    path = tmp_path.joinpath("v", *place)
    file = path / "model.pt" if place[-1] == "" else path
    file.parent.mkdir(parents=True)
    (tmp_path / "rev-abc.bin").write_bytes((BUNDLE / "model.pt").read_bytes())
    file.symlink_to(tmp_path / "rev-abc.bin")
    features = ",".join(feature["name"] for feature in manifest["features"])
    client = make_app(MODEL__PATH=str(path), MODEL__FEATURE_NAMES=features).test_client()
    assert names(client) == {name}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("churn", "churn"),
        ("Churn v2.1_b+c-d", "Churn-v2.1_b+c-d"),
        ("a/../b?c#d%2f", "a-..-b-c-d-2f"),
        ("größe", "gr--e"),
        ("..", "model"),
        ("顧客", "model"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_what_cannot_stand_in_a_url_is_replaced(text: str, name: str) -> None:
    assert as_name(text) == name


def test_a_name_of_a_manifest_that_cannot_stand_in_a_url_is_shown_as_it_can_everywhere(
    tmp_path: Path, make_app: Make
) -> None:
    place_bundle(tmp_path / "1", name="Größe / neu")
    assert names(make_app(MODEL__PATH=str(tmp_path)).test_client()) == {"Gr--e---neu"}


def test_a_release_of_another_name_is_followed_under_the_name_that_was_there(
    tmp_path: Path, make_app: Make
) -> None:
    place_bundle(tmp_path / "1", "churn", "1")
    place_bundle(tmp_path / "2", "leavers", "2")
    write_release(tmp_path, Release("1"))
    app = make_app(MODEL__PATH=str(tmp_path))
    service = app.extensions["lantern"].default_service
    service.load()
    write_release(tmp_path, Release("2"))
    service.refresh()
    assert service.current().version == "2"
    assert names(app.test_client()) == {"churn"}
    # With the name in the settings, whatever manifests say, there is nothing to be said.
    named = make_app(MODEL__PATH=str(tmp_path), MODEL__NAME="shop")
    assert names(named.test_client()) == {"shop"}


def test_a_model_that_is_not_there_yet_has_no_name_until_its_files_say_it(
    tmp_path: Path, make_app: Make, sample: dict[str, float]
) -> None:
    app = make_app(MODEL__PATH=str(tmp_path / "volume"))
    client, service = app.test_client(), app.extensions["lantern"].default_service
    assert client.get("/models").get_json()["models"][0]["name"] is None
    answer = client.post("/models/churn/predict", json={"features": sample})
    assert answer.status_code == 503
    assert "There is no model at" in answer.get_json()["detail"]
    assert "enum" not in str(client.get("/openapi.json").get_json()["paths"]["/models/{name}"])
    bundle = place_bundle(tmp_path / "volume" / "1")
    model = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(b"damaged")
    service.refresh()
    assert client.get("/models").get_json()["models"][0]["name"] == "churn"
    assert client.post("/models/other/predict", json={"features": sample}).status_code == 404
    assert client.post("/models/churn/predict", json={"features": sample}).status_code == 503
    (bundle / "model.onnx").write_bytes(model)
    service.refresh()
    assert client.post("/models/churn/predict", json={"features": sample}).status_code == 200
    assert names(client) == {"churn", ""}  # the empty one is of the time before
    refused = samples(client.get("/metrics").get_data(as_text=True))
    assert refused[("lantern_release_rejected", (("model", ""),))] == 0


def test_of_several_processes_the_first_decides_for_all() -> None:
    name = ModelName()
    child = os.fork()
    if not child:
        os._exit(name.decide(lambda: "first") != "first")
    assert os.waitpid(child, 0)[1] == 0
    assert name.value == "first"
    assert name.decide(lambda: "second") == "first"


def test_a_name_that_cannot_be_learnt_is_decided_later() -> None:
    name = ModelName()

    def fail() -> str:
        raise OSError

    with pytest.raises(OSError):
        name.decide(fail)
    assert name.value == ""
    assert name.decide(lambda: "later") == name.value == "later"


def test_commands_know_a_model_by_the_name_that_urls_have(tmp_path: Path, make_app: Make) -> None:
    place_bundle(tmp_path / "x" / "1")
    place_bundle(tmp_path / "other" / "3", name="else", version="3")
    runner = make_app(MODEL__PATH=str(tmp_path / "x")).test_cli_runner()
    for arguments, version in (
        ([], "1"),
        (["--model", "churn"], "1"),
        (["--model", "other"], "3"),  # a directory beside it, which no service serves
    ):
        ran = runner.invoke(args=["model", "list", "--json", *arguments])
        assert [each["version"] for each in json.loads(ran.output)] == [version]


def test_a_promotion_that_will_rename_a_model_is_made_on_purpose_alone(
    tmp_path: Path, make_app: Make
) -> None:
    for name, version in (("churn", "1"), ("leavers", "2"), ("churn", "3")):
        place_bundle(tmp_path / version, name, version)
    write_release(tmp_path, Release("1"))

    def promote(*arguments: str, **settings: str) -> tuple[int, str]:
        runner = make_app(MODEL__PATH=str(tmp_path), **settings).test_cli_runner()
        ran = runner.invoke(args=["model", "promote", *arguments])
        return ran.exit_code, ran.output

    status, said = promote("2")
    assert status == 1
    assert "The model's name changes from 'churn' to 'leavers'" in said
    [advice] = re.findall(r'model\.name = "(.*?)"', said)
    assert read_release(tmp_path) == Release("1")
    assert promote("3")[0] == 0
    assert promote("2", MODEL__NAME=advice)[0] == 0  # as it says
    write_release(tmp_path, Release("1"))
    assert promote("2", "--allow-schema-change")[0] == 0
