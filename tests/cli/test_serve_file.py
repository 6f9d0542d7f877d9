"""``lantern serve FILE``: a model's file as it is, packed for as long as it is served."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from onnx import TensorProto, helper

from tests.conftest import ROOT, without_coverage
from tests.handler_bundles import PLAIN
from tests.step_models import picture
from tests.tensor_graphs import write_graph

LONG = 120.0
"""Seconds that nothing here takes unless something is wrong."""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write_graph(
        tmp_path / "doubling.onnx",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", 2])],
        [("y", TensorProto.FLOAT, ["n", 2])],
    )


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where temporary files of the command are."""
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@contextmanager
def serving(file: Path, scratch: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``lantern serve FILE`` on a socket in a directory of its own."""
    clean = {k: v for k, v in without_coverage().items() if not k.startswith("LANTERN_")}
    variables = {
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(scratch),
        "LANTERN_ACCESS__AUTH": "none",
        "GUNICORN_CMD_ARGS": "--bind 127.0.0.1:0",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve", str(file), "--workers", "1", *options],
        cwd=file.parent,
        env=clean | variables,
        stderr=(file.parent / "log").open("w"),
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(holds: Callable[[], object], process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + LONG
    while not holds():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def address(log: Path) -> str:
    """Return the URL that Gunicorn says it listens at; empty until it does."""
    found = log.read_text().partition("Listening at: ")[2].split()
    return found[0].strip('",') if found else ""


def answers(log: Path) -> bool:
    if not address(log):
        return False
    try:
        return requests.get(f"{address(log)}/v2/health/ready", timeout=5).ok
    except requests.ConnectionError:
        return False


def ended(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(LONG)


@pytest.mark.isolated
def test_a_file_is_served_by_its_name_and_nothing_is_left_behind(
    graph: Path, scratch: Path
) -> None:
    log = graph.parent / "log"
    with serving(graph, scratch) as process:
        until(lambda: answers(log), process, log)
        asked = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5]}]}
        answer = requests.post(
            f"{address(log)}/v2/models/doubling/infer", json=asked, timeout=LONG
        ).json()
        assert np.ravel(answer["outputs"][0]["data"]).tolist() == [2, 5]
        assert list(scratch.iterdir()) != []
        assert ended(process) == 0
    assert list(scratch.iterdir()) == []


@pytest.mark.isolated
def test_nothing_is_left_behind_by_a_command_that_is_stopped_while_it_packs(
    graph: Path, scratch: Path
) -> None:
    with serving(graph, scratch) as process:
        until(lambda: list(scratch.iterdir()), process, graph.parent / "log")
        assert ended(process) == 128 + signal.SIGTERM
    assert list(scratch.iterdir()) == []


@pytest.mark.isolated
def test_a_file_that_needs_an_example_says_how_it_is_packed(tmp_path: Path, scratch: Path) -> None:
    graph = write_graph(
        tmp_path / "picking.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [("x", TensorProto.FLOAT, [4]), ("shape", TensorProto.INT64, [2])],
        [("y", TensorProto.FLOAT, None)],
    )
    with serving(graph, scratch) as process:
        assert process.wait(LONG) == 1
    said = (tmp_path / "log").read_text()
    assert "model pack" in said
    assert "--task tensors --samples example.npz --out models/picking/1" in said
    assert list(scratch.iterdir()) == []


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive of TorchServe whose handler needs nothing."""
    return write_archive(tmp_path / "echo.mar", "def handle(data, context): return data and ['x']")


def write_archive(path: Path, handler: str) -> Path:
    manifest = {"model": {"modelName": "echo", "handler": "handler.py"}}
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        made.writestr("handler.py", handler)
    return path


@pytest.mark.isolated
def test_an_archive_is_served_with_its_handler_where_its_code_is_allowed(
    archive: Path, scratch: Path
) -> None:
    log = archive.parent / "log"
    with serving(archive, scratch, "--allow-code", "--name", "mine") as process:
        until(lambda: answers(log), process, log)
        info = requests.get(f"{address(log)}/model/info", timeout=LONG).json()
        assert (info["name"], info["runtime"]) == ("mine", "handler")
        assert ended(process) == 0
    assert list(scratch.iterdir()) == []


@pytest.mark.isolated
def test_what_is_done_before_it_serves_is_said_at_once(archive: Path, scratch: Path) -> None:
    write_archive(archive, "while True: pass")
    log = archive.parent / "log"
    with serving(archive, scratch, "--allow-code", "--name", "mine") as process:
        until(log.read_text, process, log)
        first = log.read_text().splitlines()[0]
        assert first.startswith(f"Packing {archive} with its handler in a child process")
        assert first.endswith("to serve it as mine ...")
        assert ended(process) == 128 + signal.SIGTERM
    assert list(scratch.iterdir()) == []


@pytest.mark.isolated
def test_what_an_archive_leaves_is_said_where_it_is_served(archive: Path, scratch: Path) -> None:
    log = archive.parent / "log"
    with serving(archive, scratch, "--allow-code") as process:
        until(lambda: answers(log), process, log)
        assert "nothing verifies what the handler answers." in log.read_text()
        assert ended(process) == 0


@pytest.mark.isolated
def test_a_name_that_is_none_is_refused(archive: Path, scratch: Path) -> None:
    with serving(archive, scratch, "--allow-code", "--name", "a b") as process:
        assert process.wait(LONG) != 0
    assert "Setting model.name = 'a b' (--name): must be" in (archive.parent / "log").read_text()


@pytest.mark.isolated
def test_an_archive_with_a_handler_of_torchserve_is_served_without_code(
    tmp_path: Path, scratch: Path
) -> None:
    layers = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 6))
    torch.jit.save(torch.jit.script(torch.nn.Sequential(*layers)), str(tmp_path / "model.pt"))
    model = {"modelName": "x", "handler": "image_classifier", "serializedFile": "model.pt"}
    path, log = tmp_path / "colours.mar", tmp_path / "log"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
        made.write(tmp_path / "model.pt", "model.pt")
    with serving(path, scratch, "--allow-code") as process:
        until(lambda: answers(log), process, log)
        info = requests.get(f"{address(log)}/model/info", timeout=LONG).json()
        assert (info["name"], info["runtime"]) == ("colours", "onnx")
        url = f"{address(log)}/predictions/colours"
        found = requests.post(url, data=picture(), timeout=LONG).json()
        assert len(found) == 5
        assert [*found.values()] == sorted(found.values(), reverse=True)
        assert ended(process) == 0
    assert list(scratch.iterdir()) == []


@pytest.mark.isolated
def test_a_handler_of_ones_own_is_served_where_its_code_is_allowed(
    tmp_path: Path, scratch: Path
) -> None:
    (tmp_path / "double.py").write_text(PLAIN)
    log = tmp_path / "log"
    with serving(tmp_path / "double.py", scratch) as process:
        assert process.wait(LONG) == 1
    assert "double.py is code, which runs to be packed" in log.read_text()
    with serving(tmp_path / "double.py", scratch, "--allow-code") as process:
        until(lambda: answers(log), process, log)
        asked = requests.post(f"{address(log)}/predict", json={"value": 3}, timeout=LONG)
        assert asked.json() == 6
        assert ended(process) == 0
    assert list(scratch.iterdir()) == []


@pytest.mark.isolated
def test_an_archive_is_not_served_where_it_is_not(archive: Path, scratch: Path) -> None:
    with serving(archive, scratch) as process:
        assert process.wait(LONG) == 1
    assert "has code of its own, handler.py" in (archive.parent / "log").read_text()
    assert list(scratch.iterdir()) == []


@pytest.mark.isolated
def test_a_directory_of_transformers_is_served_with_its_steps(
    tmp_path: Path, scratch: Path
) -> None:
    pytest.importorskip("transformers")
    from tests.packing.huggingface.test_model import of_texts

    directory = of_texts(tmp_path / "support")
    log = tmp_path / "log"
    with serving(directory, scratch) as process:
        until(lambda: answers(log), process, log)
        asked = {"text": "where is my parcel"}
        answer = requests.post(f"{address(log)}/predict", json=asked, timeout=LONG).json()
        assert answer["label"] in ("billing", "delivery", "account")
        assert ended(process) == 0
    assert list(scratch.iterdir()) == []


@pytest.mark.isolated
def test_a_directory_of_transformers_says_what_it_takes_to_pack_it(
    tmp_path: Path, scratch: Path
) -> None:
    if find_spec("transformers") is not None:
        pytest.skip("transformers is installed")
    directory = tmp_path / "support"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    with serving(directory, scratch) as process:
        assert process.wait(LONG) == 1
    assert "pip install transformers" in (tmp_path / "log").read_text()
    assert list(scratch.iterdir()) == []
