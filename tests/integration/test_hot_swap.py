"""New versions go live under full load on real workers, and no request is lost or mixed up."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch

from app.model.network import Network
from app.packing.network import pack
from app.registry.release import Release, write_release
from tests.conftest import without_coverage
from tests.integration.conftest import Server, wait_for
from tests.small_model import CLASSES, FEATURES
from tests.telemetry.test_metrics import samples

PROMOTIONS = {"keepalive": 30, "gthread": 10, "sync": 10}
"""By the class of the workers, which differ in how they accept and not in how they follow."""
SWAPS = {"keepalive": 50, "gthread": 20, "sync": 20}
"""Likewise; each that leaves its weights behind is seen from the twelfth on."""
WIDTH = 1000
WEIGHTS_KIB = WIDTH * WIDTH * 4 // 1024
"""Of a network with two hidden layers of that width: nearly all are between the two."""
SAMPLE = {"age": 30, "income": 20_000, "visits": 1}
Start = Callable[..., Server]

# wrk counts what fails; that an answer is of the version it names is looked at here.
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '%s'
local own = {%s}
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() wrong = 0; seen = {} end
function response(status, headers, body)
  local version = body:match('"model_version":"([^"]*)"')
  local probabilities = body:match('"probabilities":({[^}]*})')
  if status ~= 200 or own[version] ~= probabilities then wrong = wrong + 1 end
  if version then seen[version] = true end
end
function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  local wrong, versions = 0, {}
  for _, thread in ipairs(threads) do
    wrong = wrong + thread:get("wrong")
    for version in pairs(thread:get("seen")) do table.insert(versions, '"' .. version .. '"') end
  end
  print(string.format('{"requests":%%d,"failed":%%d,"wrong":%%d,"seen":[%%s]}',
    summary.requests, failed, wrong, table.concat(versions, ",")))
end
"""

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="there is no wrk to load with")


def ask(server: Server, **headers: str) -> dict[str, Any]:
    response = requests.post(
        f"{server.url}/predict",
        json={"features": SAMPLE},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        timeout=120,
    )
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.fixture(params=["onnx", "torch"])
def server(request: pytest.FixtureRequest, start: Start, versions: Path) -> Iterator[Server]:
    """Two workers on the three versions, of which the first serves."""
    write_release(versions, Release("1"))
    server = start(
        *("-w", "2", "--keep-alive", "5"),
        MODEL__PATH=str(versions),
        MODEL__RUNTIME=request.param,
        # On a busy machine the network may take so long that rows would run together, and be
        # answered with other last digits; here each version has one answer.
        MODEL__BATCH_ROWS="0",
        RELEASE__POLL_SECONDS="0.05",
        LOGGING__LEVEL="WARNING",  # a line a request, at this load, would fill the disk
        environ=without_coverage(),  # which would be most of the load
    )
    yield server
    server.stop()


def served(server: Server, version: str) -> Callable[[], bool]:
    """Return whether every worker has gone over to ``version``."""

    def by_all() -> bool:
        return {ask(server)["model_version"] for _ in range(12)} == {version}

    return by_all


def changes(server: Server) -> float:
    """Tell how often the workers have gone over to another release, all together."""
    text = requests.get(f"{server.url}/metrics", timeout=120).text
    return samples(text)[("lantern_release_changes_total", (("model", "example"),))]


@needs_wrk
def test_promotions_under_full_load_lose_nothing_and_mix_up_nothing(
    server: Server, worker_class: str, versions: Path, tmp_path: Path
) -> None:
    promotions = PROMOTIONS[worker_class]
    own = {}
    for version in ("2", "1"):
        write_release(versions, Release(version))
        wait_for(served(server, version))
        own[version] = json.dumps(ask(server)["probabilities"], separators=(",", ":"))
    assert own["1"] != own["2"]
    script = tmp_path / "load.lua"
    body = json.dumps({"features": SAMPLE})
    script.write_text(SCRIPT % (body, ", ".join(f"['{v}'] = '{p}'" for v, p in own.items())))
    load = subprocess.Popen(
        [
            "wrk",
            "-t1",
            "-c16",
            "-d900s",
            "--timeout",
            "120s",
            "-s",
            str(script),
            f"{server.url}/predict",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    swaps = 0
    while load.poll() is None and swaps < promotions:
        before = changes(server)
        write_release(versions, Release(str(2 - swaps % 2)))
        wait_for(lambda before=before: load.poll() is not None or changes(server) >= before + 2)
        swaps += 1
    load.send_signal(signal.SIGINT)  # wrk then tells what it saw so far
    (report,) = [line for line in load.communicate()[0].splitlines() if line.startswith("{")]
    told = json.loads(report)
    assert swaps == promotions, f"only {swaps} promotions in the time of the load: {told}"
    assert told["requests"] > 100
    assert (told["failed"], told["wrong"]) == (0, 0)
    assert sorted(told["seen"]) == ["1", "2"]


def test_workers_that_begin_under_a_bad_release_serve_what_the_others_do(
    start: Start, versions: Path
) -> None:
    write_release(versions, Release("1"))
    server = start("-w", "2", MODEL__PATH=str(versions), RELEASE__POLL_SECONDS="0.05")
    (versions / "2" / "model.onnx").write_bytes(b"damaged")
    write_release(versions, Release("2"))

    def refused_by_all() -> bool:
        lines = server.lines("release not followed") + server.lines("model not loaded")
        return {line["pid"] for line in lines} >= set(server.workers())

    wait_for(refused_by_all)
    os.kill(server.workers()[0], signal.SIGKILL)
    wait_for(lambda: len(server.workers()) == 2 and refused_by_all())
    assert {ask(server)["model_version"] for _ in range(12)} == {"1"}
    before = server.workers()
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: not set(before) & set(server.workers()) and refused_by_all())
    assert {ask(server)["model_version"] for _ in range(12)} == {"1"}
    fault = requests.get(f"{server.url}/model/info", timeout=120).json()["release"]["fault"]
    assert "bytes" in fault
    write_release(versions, Release("3"))
    wait_for(served(server, "3"))
    server.stop()


def test_a_worker_that_is_stopped_while_it_loads_ends_in_peace(
    start: Start, versions: Path
) -> None:
    write_release(versions, Release("1"))
    server = start("-w", "2", MODEL__PATH=str(versions), RELEASE__POLL_SECONDS="0.01")
    for number in range(20):
        write_release(versions, Release(str(number % 3 + 1)))
    server.stop()
    text = server.log.read_text()
    assert server.process.returncode == 0, text
    assert "terminate called" not in text
    # One that had only begun to load may have been ended by the signal itself.
    assert set(re.findall(r"was sent (SIG\w+)", text)) <= {"SIGTERM"}, text


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a large model's versions 1 and 2; each test releases one of them first."""
    models = tmp_path_factory.mktemp("models") / "large"
    for version in ("1", "2"):
        torch.manual_seed(int(version))
        pack(
            Network(len(FEATURES), WIDTH, len(CLASSES)),
            models / version,
            name="large",
            version=version,
            features=FEATURES,
            classes=CLASSES,
            golden_samples=np.array([[30, 20_000, 1]], dtype=np.float32),
        )
    return models


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_swaps_leave_no_memory_behind(
    start: Start, worker_class: str, large: Path, runtime: str
) -> None:
    write_release(large, Release("1"))
    server = start(
        *("-w", "1"),
        MODEL__PATH=str(large),
        MODEL__RUNTIME=runtime,
        RELEASE__POLL_SECONDS="0.02",
        environ=without_coverage(),  # which keeps what it saw
    )
    (worker,) = server.workers()

    def swap(times: int) -> None:
        for _ in range(times):
            version = "1" if ask(server)["model_version"] == "2" else "2"
            write_release(large, Release(version))
            wait_for(lambda version=version: ask(server)["model_version"] == version)

    swap(5)
    after_five = resident(worker)
    swap(SWAPS[worker_class] - 5)
    after_all = resident(worker)
    print(f"resident after 5 swaps {after_five} KiB, after all {after_all} KiB")
    # The heap may keep what a few versions took; 45 that stay would be 180 MB.
    assert after_all - after_five <= 6 * WEIGHTS_KIB
    server.stop()


def resident(pid: int) -> int:
    """Return the resident memory of a process in KiB, shared or not."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1])
