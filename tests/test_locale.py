"""Commands and the service in a locale that knows no text but ASCII, as many containers have it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from app.model.golden import Golden
from app.model.signature import FEATURES
from tests.conftest import BUNDLE, ROOT
from tests.damage import edit_manifest
from tests.integration.conftest import Server, wait_for

C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
MARK = b"\xef\xbb\xbf"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model below a directory, with texts, that ASCII lacks; don't change it but its release."""
    directory = tmp_path_factory.mktemp("modèles") / "größe"
    shutil.copytree(BUNDLE, directory / "1")
    edit_manifest(
        directory / "1",
        lambda manifest: manifest.update(classes=["bleibt", "kündigt"], description="→ 顧客"),
    )
    edit_manifest(directory / "1", lambda manifest: manifest["features"][0].update(unit="µm"))
    return directory


@pytest.fixture(scope="module")
def config(models: Path) -> Path:
    """A file of settings with a byte order mark, that names the model."""
    file = models.with_name("café.toml")
    file.write_bytes(MARK + f'[model]\npath = "{models}"\n'.encode())
    return file


def flask(*arguments: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("LANTERN_")}
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", *arguments],
        cwd=ROOT,
        env=inherited | C | environ,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("", "µm → 顧客 kündigt"),
        ("ascii", "µm → 顧客 kündigt"),  # click takes it for a mistake
        ("utf-8", "µm → 顧客 kündigt"),
        ("latin-1", "µm \\u2192 \\u9867\\u5ba2 kündigt"),
    ],
)
def test_a_command_prints_whatever_standard_output_can_not_write(
    encoding: str, shown: str, config: Path
) -> None:
    ran = flask("model", "show", "1", LANTERN_CONFIG=str(config), PYTHONIOENCODING=encoding)
    assert ran.returncode == 0, ran.stderr
    text = ran.stdout.decode(encoding if encoding == "latin-1" else "utf-8")
    for word in shown.split():
        assert word in text


def test_the_settings_are_read_and_shown(models: Path, config: Path) -> None:
    ran = flask(
        "config", "--json", LANTERN_CONFIG=str(config), LANTERN_MODEL__FEATURE_NAMES="größe"
    )
    assert ran.returncode == 0, ran.stderr
    values = json.loads(ran.stdout)
    assert values["model.path"] == {"value": str(models), "origin": str(config)}
    assert values["model.feature_names"]["value"] == ["größe"]


def test_a_setting_that_is_no_text_is_refused_by_name() -> None:
    for variable in ("LANTERN_MODEL__PATH", "LANTERN_MODEL__NAME"):
        ran = flask("config", **{variable: os.fsdecode(b"/srv/caf\xe9")})
        assert (ran.returncode, ran.stderr) == (1, f"Error: {variable} is not UTF-8.\n".encode())


def test_a_reason_is_kept_as_it_was_typed(models: Path) -> None:
    environ = {"LANTERN_MODEL__PATH": str(models)}
    assert flask("model", "promote", "1", "-m", "größer → besser", **environ).returncode == 0
    ran = flask("model", "history", "--json", **environ)
    assert json.loads(ran.stdout)[-1]["why"] == "größer → besser"
    assert "größer → besser" in flask("model", "history", **environ).stdout.decode()


def test_an_error_names_a_file_that_ascii_can_not(models: Path) -> None:
    ran = flask("model", "verify", "7", LANTERN_MODEL__PATH=str(models))
    assert ran.stderr.decode() == f"Error: {models} has no version '7'; it has: 1.\n"


def test_a_model_is_packed_from_files_with_marks(
    models: Path, golden: Golden, tmp_path: Path
) -> None:
    manifest = json.loads((BUNDLE / "manifest.json").read_text())
    names = ["größe", *(feature["name"] for feature in manifest["features"][1:])]
    toml = 'classes = ["a", "ü"]\n' + "".join(
        f'[[features]]\nname = "{name}"\nunit = "µm"\nnullable = true\n' for name in names
    )
    rows = [
        ["" if np.isnan(value) else str(value) for value in row]
        for row in golden.inputs[FEATURES].tolist()
    ]
    csv = "".join(",".join(row) + "\n" for row in [names, *rows])
    (tmp_path / "merkmale-ä.toml").write_bytes(MARK + toml.encode())
    (tmp_path / "samples.csv").write_bytes(MARK + csv.encode())
    out = tmp_path / "modèle" / "churn" / "1"
    ran = flask(
        *("model", "pack", str(BUNDLE / "model.pt"), "--out", str(out)),
        *("--features", str(tmp_path / "merkmale-ä.toml")),
        *("--samples", str(tmp_path / "samples.csv")),
        PYTHONIOENCODING="latin-1",
    )
    assert ran.returncode == 0, ran.stderr
    assert f"to {out}: ".encode("latin-1") in ran.stdout
    packed = json.loads((out / "manifest.json").read_bytes().decode())
    assert packed["features"][0]["name"] == "größe"
    assert packed["features"][0]["unit"] == "µm"


@pytest.fixture(params=["onnx", "torch"])
def server(request: pytest.FixtureRequest, config: Path, tmp_path: Path) -> Iterator[Server]:
    """A service that was started in the locale C, in which Python was told to stay."""
    settings = {"CONFIG": str(config), "MODEL__RUNTIME": request.param}
    started = Server(["-w", "1"], settings, tmp_path / "log", environ=os.environ | C)
    try:
        started.wait_until_up()
        yield started
    finally:
        started.stop()


def test_a_service_starts_predicts_and_logs(
    server: Server, models: Path, sample: dict[str, float]
) -> None:
    wait_for(lambda: requests.get(f"{server.url}/health/ready", timeout=20).ok)
    answer = requests.post(f"{server.url}/predict", json={"features": sample}, timeout=20).json()
    assert answer["label"] in ("bleibt", "kündigt")
    info = requests.get(f"{server.url}/model/info", timeout=20).json()
    assert (info["description"], info["features"][0]["unit"]) == ("→ 顧客", "µm")
    page = requests.get(server.url, headers={"Accept": "text/html"}, timeout=20)
    assert "→ 顧客" in page.content.decode()
    [line] = wait_for(lambda: server.lines("prediction"))
    assert line["prediction"] == answer["label"]


def test_why_a_model_is_not_loaded_is_told(tmp_path: Path) -> None:
    place = tmp_path / "nirgendwö"
    server = Server(
        ["-w", "1"], {"MODEL__PATH": str(place)}, tmp_path / "log", environ=os.environ | C
    )
    try:
        server.wait_until_up()
        health = requests.get(f"{server.url}/health", timeout=20)
        assert health.status_code == 503
        assert health.json()["reason"] == f"There is no model at {place}."
        [line] = server.lines("model not loaded")
        assert line["reason"] == health.json()["reason"]
    finally:
        server.stop()
