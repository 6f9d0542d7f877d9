"""The files of the model that is served change under the server.

A damaged version that is renamed over the one that serves is not followed, nor is one that is gone:
what is loaded goes on to serve, and ``/model/info`` says why; the next release is followed. What is
written *into* the files that are served reaches nobody: they were read whole. Except for large
checkpoints under torch (4 MiB and more), whose weights are mapped from the file: one that is cut
short costs the workers (SIGBUS), visibly; those that follow are unhealthy and say so, until there
is a release that can be served.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import requests

from app.model.network import Network
from app.packing.network import pack
from app.registry.release import Release, write_release
from tests.faults.conftest import Callers, Start, predict
from tests.integration.conftest import Server, wait_for
from tests.small_model import CLASSES, FEATURES

SAMPLE = {"age": 30, "income": 20_000, "visits": 1}


def file_of(version: Path, runtime: str) -> Path:
    return version / {"onnx": "model.onnx", "torch": "model.pt"}[runtime]


def refused_by(server: Server, after: int = 0) -> set[int]:
    """Return the workers that did not follow the release, by the log from line ``after``."""
    lines = server.lines()[after:]
    return {line["pid"] for line in lines if line["message"] == "release not followed"}


def fault(server: Server) -> str:
    """Return why the release is not served as it stands; empty when it is."""
    document = requests.get(f"{server.url}/model/info", timeout=120).json()
    return document["release"]["fault"] or ""


def serve(start: Start, versions: Path, runtime: str) -> Server:
    write_release(versions, Release("1"))
    return start(
        *(2, "-t", "5"),
        MODEL__PATH=str(versions),
        MODEL__RUNTIME=runtime,
        RELEASE__POLL_SECONDS="0.1",
    )


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_a_damaged_version_and_one_that_is_gone_are_not_followed(
    start: Start, versions: Path, runtime: str
) -> None:
    server = serve(start, versions, runtime)
    workers = server.workers()
    first = predict(server, SAMPLE).json()["probabilities"]
    file = file_of(versions / "1", runtime)
    whole = file.read_bytes()
    with Callers(server, SAMPLE) as callers:
        damaged = file.with_suffix(".new")
        damaged.write_bytes(whole[: len(whole) // 2])
        damaged.rename(file)
        wait_for(lambda: refused_by(server) == set(workers))
        callers.wait_for_more(50)
        assert file.name in fault(server)
        assert predict(server, SAMPLE).json()["probabilities"] == first
        told = len(server.lines())
        (versions / "1").rename(versions.parent / "gone")
        wait_for(lambda: refused_by(server, told) == set(workers))
        callers.wait_for_more(50)
        assert predict(server, SAMPLE).json()["probabilities"] == first
        write_release(versions, Release("2"))
        wait_for(lambda: len(server.lines("release followed")) == 2)
        callers.wait_for_more(50)
        assert not fault(server)
        assert predict(server, SAMPLE).json()["probabilities"] != first
    assert (set(callers.answered), callers.failed, callers.silent) == ({200}, 0, 0)
    assert server.workers() == workers


@pytest.mark.parametrize("how", ["cut", "emptied", "overwritten"])
@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_what_is_written_into_the_files_that_are_served_reaches_nobody(
    start: Start, versions: Path, runtime: str, how: str
) -> None:
    server = serve(start, versions, runtime)
    workers = server.workers()
    first = predict(server, SAMPLE).json()["probabilities"]
    with Callers(server, SAMPLE) as callers:
        damage_in_place(file_of(versions / "1", runtime), how)
        wait_for(lambda: refused_by(server) == set(workers))
        callers.wait_for_more(50)
    assert predict(server, SAMPLE).json()["probabilities"] == first
    assert (set(callers.answered), callers.failed, callers.silent) == ({200}, 0, 0)
    assert server.workers() == workers


def test_a_large_checkpoint_that_is_cut_under_torch_costs_workers_and_is_then_refused(
    start: Start, versions: Path
) -> None:
    shutil.rmtree(versions / "1")
    pack(
        Network(len(FEATURES), 1100, len(CLASSES)),
        versions / "1",
        name="example",
        version="1",
        features=FEATURES,
        classes=CLASSES,
        golden_samples=np.array([[30, 20_000, 1]], dtype=np.float32),
    )
    server = serve(start, versions, "torch")
    with Callers(server, SAMPLE) as callers:
        callers.wait_for_more(50)
        damage_in_place(versions / "1" / "model.pt", "emptied")
        wait_for(lambda: 503 in callers.answered)
        write_release(versions, Release("2"))
        wait_for(lambda: predict(server, SAMPLE).status_code == 200)
    assert set(callers.answered) == {200, 503}
    assert callers.silent == 0
    text = server.log.read_text()
    assert "was sent SIGBUS" in text
    assert "model.pt has 0 bytes" in text


def damage_in_place(file: Path, how: str) -> None:
    """Change the file that is open in the server, not the directory's entry for it."""
    size = file.stat().st_size
    if how == "overwritten":
        with file.open("r+b") as opened:
            opened.write(b"\0" * size)
    else:
        os.truncate(file, size // 2 if how == "cut" else 0)
