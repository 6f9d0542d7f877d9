"""What the master does before the fork, so that workers share its memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from app.model.code.permission import code_sha256
from app.model.manifest_file import read_manifest
from app.registry.release import Release, write_release
from tests.conftest import ROOT
from tests.handler_bundles import with_handler
from tests.integration.conftest import Server, alone, wait_for

Start = Callable[..., Server]


@pytest.fixture(scope="module")
def worker_class() -> str:
    return "keepalive"  # what is tested here doesn't know the worker


def library(directory: Path, name: str) -> Path:
    """Write a library that notes which process imports it; return the file with their pids."""
    noted = directory / f"{name}.pids"
    source = f"import os\nwith open({str(noted)!r}, 'a') as pids: print(os.getpid(), file=pids)\n"
    (directory / f"{name}.py").write_text(source)
    return noted


def importing(path: Path, *libraries: str) -> None:
    """Make a version whose handler imports ``libraries``."""
    lines = "".join(f"import {each}\n" for each in libraries)
    source = f"{lines}class Handler:\n    def predict(self, request):\n        return 1\n"
    with_handler(path, source, requests=())


def release(models: Path, version: str) -> None:
    """Release a version with the code that it has."""
    code = code_sha256(read_manifest(models / version / "manifest.json"))
    write_release(models, Release(version, code={version: code}))


def test_a_library_that_workers_can_share_is_imported_once_by_the_master(
    start: Start, tmp_path: Path
) -> None:
    """Not one that might not work after a fork, nor one that a later version is the first to take:
    each worker imports these by itself.
    """
    shared, unknown, later = (library(tmp_path, name) for name in ("cv2", "rare", "sentencepiece"))
    models = tmp_path / "models"
    importing(models / "1", "cv2", "rare")
    importing(models / "2", "sentencepiece")
    release(models, "1")
    server = start(
        *("-w", "2"),
        environ=os.environ | {"PYTHONPATH": str(tmp_path)},
        MODELS__M=str(models),
        MODEL__ALLOW_CODE="true",
        RELEASE__POLL_SECONDS="0.05",
    )
    wait_for(lambda: len(server.lines("model loaded")) == 2)
    workers = sorted(server.workers())
    assert pids(shared) == [server.process.pid]
    assert pids(unknown) == workers
    assert not later.exists()
    release(models, "2")
    wait_for(lambda: len(server.lines("model loaded")) == 4)
    assert pids(later) == workers


def pids(noted: Path) -> list[int]:
    return sorted(map(int, noted.read_text().split()))


def test_torch_of_the_master_runs_in_a_worker_on_its_own_threads(
    start: Start, tmp_path: Path
) -> None:
    source = """
import torch

class Handler:
    def predict(self, request):
        values = torch.ones(500, 500)
        return [float((values @ values).sum()), torch.get_num_threads()]
"""
    with_handler(tmp_path / "m" / "1", source, requests=())
    settings = {"MODEL__PATH": str(tmp_path / "m"), "MODEL__THREADS": "3"}
    server = start("-w", "2", MODEL__ALLOW_CODE="true", **settings)
    for worker in wait_for(lambda: len(server.lines("model loaded")) == 2 and server.workers()):
        with alone(server, worker):
            answer = requests.post(f"{server.url}/predict", data=b"x", timeout=120)
            assert answer.json() == [500.0**3, 3]


def test_workers_collect_no_garbage_among_what_they_share(start: Start, tmp_path: Path) -> None:
    """It would copy the pages of all that the master has imported."""
    config = tmp_path / "conf.py"
    config.write_text(
        f"import gc\n"
        f"from pathlib import Path\n"
        f"exec(Path({str(ROOT / 'gunicorn.conf.py')!r}).read_text())\n"
        f"ours = post_fork\n"
        f"def post_fork(server, worker):\n"
        f"    counts = f'{{gc.get_freeze_count()}} {{len(gc.get_objects())}}'\n"
        f"    Path({str(tmp_path)!r}, str(worker.pid)).write_text(counts)\n"
        f"    ours(server, worker)\n"
    )
    server = start("-w", "1", "-c", str(config))
    (first,) = server.workers()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: len(server.lines("model loaded")) == 2)
    (second,) = server.workers()
    for worker in (first, second):
        frozen, others = map(int, (tmp_path / str(worker)).read_text().split())
        assert frozen > 20 * others, "what was there before the fork is collected"
