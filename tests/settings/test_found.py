"""What is served where no setting names a model: what is in ./models, or else the example."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from app import create_app
from app.settings import found, load_settings
from tests.conftest import BUNDLE, ROOT

EXAMPLE = ROOT / "models" / "campaign-response"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def add(*names: str) -> None:
    for name in names:
        (Path("models") / name).mkdir(parents=True)
        (Path("models") / name / "1").symlink_to(BUNDLE)


def ship_models_of(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``directory`` be what the package ships with, as in a checkout and in the image."""
    add("campaign-response")
    monkeypatch.setattr(found, "SHIPPED", directory)
    monkeypatch.setattr("app.settings.load.SHIPPED", directory)


def run(*arguments: str, **variables: str) -> Result:
    app = create_app(load_settings({f"LANTERN_{k}": v for k, v in variables.items()}))
    return app.test_cli_runner().invoke(args=arguments)


def test_without_models_the_example_is_served(here: Path) -> None:
    for make in (lambda: None, (here / "models").mkdir, (here / "models/lost+found").mkdir):
        make()
        settings = load_settings({})
        assert dict(settings.models) == {"": EXAMPLE}
        assert settings.origin_of_model("") == "default"


def test_one_model_is_served_by_the_name_in_its_files(here: Path) -> None:
    add("churn")
    settings = load_settings({})
    assert dict(settings.models) == {"": here / "models" / "churn"}
    assert settings.origin_of_model("") == "./models"
    assert settings.models_fault == ""


def test_several_are_served_by_the_names_of_their_directories(
    here: Path, sample: dict[str, Any]
) -> None:
    add("two", "one")
    settings = load_settings({})
    assert list(settings.models.items()) == [(n, here / "models" / n) for n in ("one", "two")]
    assert settings.origin_of_model("two") == "./models"
    client = create_app(settings).test_client()
    for path in ("/predict", "/models/one/predict", "/models/two/predict"):
        assert client.post(path, json={"features": sample}).status_code == 200
    assert client.get("/model/info").get_json()["name"] == "one"
    listed = client.get("/models").get_json()["models"]
    assert [each["name"] for each in listed] == ["one", "two"]


def test_a_copy_of_the_example_comes_last_as_in_the_image() -> None:
    add("campaign-response", "churn", "zoo")
    assert list(load_settings({}).models) == ["churn", "zoo", "campaign-response"]


def test_a_checkout_serves_its_example_and_what_is_put_beside_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship_models_of(here, monkeypatch)
    settings = load_settings({})
    assert dict(settings.models) == {"": here / "models" / "campaign-response"}
    assert set(settings.origins.values()) == {"default"}
    add("churn")  # which comes first, wherever the alphabet has it
    assert list(load_settings({}).models) == ["churn", "campaign-response"]


@pytest.mark.parametrize("variable", ["LANTERN_MODEL__PATH", "LANTERN_MODELS__MINE"])
def test_what_the_settings_name_is_served_alone(here: Path, variable: str) -> None:
    add("one", "two")
    assert list(load_settings({variable: "elsewhere"}).models.values()) == [here / "elsewhere"]


def test_models_itself_may_be_a_directory_of_versions(here: Path) -> None:
    (here / "models").mkdir()
    (here / "models" / "1").symlink_to(BUNDLE)
    assert dict(load_settings({}).models) == {"": here / "models"}


def test_a_bundle_among_the_models_is_not_left_out_in_silence(here: Path) -> None:
    add("churn")
    (here / "models" / "fraud").symlink_to(BUNDLE)
    settings = load_settings({})
    assert dict(settings.models) == {"": here / "models" / "churn"}
    (warning,) = settings.warnings
    assert warning.startswith("models/fraud is a bundle, and isn't served: ")
    assert "Pack it to models/fraud/1" in warning
    shutil.rmtree("models/churn")  # now it is a version in a directory of them
    assert (dict(load_settings({}).models), load_settings({}).warnings) == (
        {"": here / "models"},
        (),
    )


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("unmounted"), os.mkfifo])
def test_what_stands_for_models_and_is_no_directory_is_not_passed_over(
    here: Path, make: Callable[[Path], object]
) -> None:
    """The example in its place would be a surprise."""
    make(here / "models")
    assert dict(load_settings({}).models) == {"": here / "models"}


def test_hidden_directories_are_no_models(here: Path) -> None:
    add("..2026_01_01", ".ipynb_checkpoints", "churn")
    assert dict(load_settings({}).models) == {"": here / "models" / "churn"}


def test_a_directory_that_can_not_be_read_hides_no_model(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root reads all of them: what the system would say is said in its place."""
    add("churn", "locked", "lost+found")
    closed = {"locked", "lost+found"}
    iterdir, access = Path.iterdir, os.access

    def refuse(path: Path) -> Any:
        if path.name in closed:
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    monkeypatch.setattr(
        os, "access", lambda p, mode: Path(p).name not in closed and access(p, mode)
    )
    settings = load_settings({})
    assert dict(settings.models) == {"": here / "models" / "churn"}
    assert settings.warnings == (
        "models/locked can't be read: if it has a model, that is not served.",
    )
    # Alone it isn't passed over: the example in its place would be a surprise.
    shutil.rmtree("models/churn")
    assert dict(load_settings({}).models) == {"": here / "models" / "locked"}


@pytest.mark.parametrize(
    ("names", "variables", "said"),
    [
        (("one", "a b"), {}, "'models/a b' can't stand in a URL: a model's name must be at most"),
        (("one", "two"), {"MODEL__VERSION": "1"}, "model.version (LANTERN_MODEL__VERSION) is for"),
        (("one", "two"), {"MODEL__NAME": "x"}, "./models has several: models/one, models/two."),
    ],
)
def test_what_can_not_be_served_stops_only_what_needs_a_model(
    names: tuple[str, ...], variables: dict[str, str], said: str
) -> None:
    add(*names)
    for command in (["config"], ["key", "create", "shop"], ["key", "list"]):
        assert run(*command, **variables).exit_code == 0
    chosen = run("model", "list", "--model", "one", **variables)
    assert (chosen.exit_code, "stable" in chosen.output) == (0, True)
    refused = run("model", "list", **variables)
    assert refused.exit_code == 1
    assert said in refused.output


def test_a_command_chooses_a_model_of_several_by_its_directory() -> None:
    add("one", "two")
    assert run("model", "promote", "1", "--model", "two").exit_code == 0
    assert [path.parent.name for path in Path("models").glob("*/release.toml")] == ["two"]
