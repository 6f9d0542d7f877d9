"""Where torch isn't installed, as in the image's ONNX variant, everything else works."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import BUNDLE, ROOT
from tests.damage import edit_manifest
from tests.integration.conftest import free_port, wait_for


@pytest.fixture
def start(python_without_torch: Path) -> Iterator[Callable[..., str]]:
    """Start a Gunicorn without torch and give its address: ``start(MODEL__RUNTIME="torch")``."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(**settings: str) -> str:
        port = free_port()
        environ = {k: v for k, v in os.environ.items() if not k.startswith("LANTERN_")}
        environ |= {f"LANTERN_{k}": v for k, v in settings.items()}
        command = ["-m", "gunicorn", "wsgi:app", "-w", "1", "-b", f"127.0.0.1:{port}"]
        process = subprocess.Popen([str(python_without_torch), *command], cwd=ROOT, env=environ)
        processes.append(process)
        url = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            assert process.poll() is None
            with contextlib.suppress(requests.ConnectionError):
                return requests.get(f"{url}/health/live", timeout=120).ok
            return False

        wait_for(answers)
        return url

    yield begin
    for process in processes:
        process.terminate()
        assert process.wait(120) == 0


@pytest.fixture
def without_onnx(tmp_path: Path) -> Path:
    """The bundled model in a directory of its own, as a checkpoint alone."""
    bundle = tmp_path / "checkpoints" / "1"
    shutil.copytree(BUNDLE, bundle)
    (bundle / "model.onnx").unlink()
    edit_manifest(bundle, lambda manifest: manifest["files"].pop("model.onnx"))
    return bundle.parent


def test_an_onnx_model_is_served(start: Callable[..., str], sample: dict[str, Any]) -> None:
    url = start()
    answer = requests.post(f"{url}/predict", json={"features": sample}, timeout=120)
    assert answer.status_code == 200, answer.text
    assert sum(answer.json()["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    for path in ("/", "/docs/", "/openapi.json", "/metrics", "/model/info"):
        assert requests.get(f"{url}{path}", timeout=120).status_code == 200, path


def test_a_model_that_only_torch_runs_is_refused_in_a_sentence(
    start: Callable[..., str], without_onnx: Path, sample: dict[str, Any]
) -> None:
    url = start(MODEL__PATH=str(without_onnx))
    health = requests.get(f"{url}/health", timeout=120)
    assert health.status_code == 503
    assert "has no model.onnx, but torch isn't installed: install" in health.text
    answer = requests.post(f"{url}/predict", json={"features": sample}, timeout=120)
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:lantern:problem:model-unavailable"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "model.onnx",
            b"\x08\x07",
            "is an ONNX graph by its name, and must be packed into a bundle",
        ),
        ("model.pt", b"\x80\x04K\x01.", "is a pickle, and is refused"),
    ],
)
def test_a_file_that_torch_would_not_read_either_is_told_for_what_it_is(
    start: Callable[..., str], tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    health = requests.get(f"{start(MODEL__PATH=str(tmp_path / name))}/health", timeout=120)
    assert said in health.json()["reason"]
    assert "torch isn't installed" not in health.text


@pytest.fixture
def model(python_without_torch: Path, tmp_path: Path) -> Callable[..., Any]:
    """Run a command without torch, on a copy of the bundled model: ``model("verify", "1")``."""
    shutil.copytree(BUNDLE, tmp_path / "1")

    def run(*command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environ = {f"LANTERN_{k}": v for k, v in {"MODEL__PATH": str(tmp_path), **settings}.items()}
        return subprocess.run(
            [str(python_without_torch), "-m", "flask", "--app", "wsgi", "model", *command],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"MODEL__RUNTIME": "torch"}, "is 'torch', but torch isn't installed"),
        ({"MODEL__DEVICE": "cuda"}, "Or install torch with CUDA, for this model"),
    ],
)
def test_a_setting_that_takes_torch_is_named(
    model: Callable[..., Any], setting: dict[str, str], reason: str
) -> None:
    refused = model("promote", "1", **setting)
    assert refused.returncode == 1
    assert reason in refused.stderr


def test_versions_are_verified_and_promoted_on_the_runtime_that_is_there(
    model: Callable[..., Any],
) -> None:
    verified = model("verify", "1")
    assert verified.returncode == 0, verified.stderr
    assert "onnx" in verified.stdout
    promoted = model("promote", "1")
    assert promoted.returncode == 0, promoted.stderr


def test_packing_says_what_it_takes(model: Callable[..., Any], tmp_path: Path) -> None:
    features = tmp_path / "features.toml"
    features.write_text('classes = ["a", "b"]\n[[features]]\nname = "x"\n')
    options = [
        "--features",
        str(features),
        "--samples",
        str(features),
        "--out",
        str(tmp_path / "2"),
    ]
    program = tmp_path / "model.pt2"
    program.write_bytes(b"")
    for source, missing in (
        (BUNDLE / "model.onnx", "onnx"),
        (program, "onnx, torch, onnxscript"),
    ):
        packed = model("pack", str(source), *options)
        assert packed.returncode == 1
        said = f"Error: Packing needs {missing}: pip install -r requirements-dev.txt\n"
        assert packed.stderr == said
