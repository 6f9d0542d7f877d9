"""Devices: a network answers there as on the CPU, or says why torch can't take it there.

"cpu:0" is a device that must be moved to, as a GPU is, and is there on every machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.model.errors import BundleError
from app.model.signature import FEATURES
from app.model.torch_runtime import TorchRuntime
from app.packing.answers import probabilities_of
from app.packing.network import parity_samples
from app.registry.loading import ModelSource, load_model
from tests.conftest import BUNDLE, ROOT
from tests.damage import move_golden
from tests.model.test_bundle import change
from tests.model.test_network import foreign_checkpoint
from tests.registry.test_service import load, refusal
from tests.small_model import make_network

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
without_cuda = pytest.mark.skipif(
    torch.backends.cuda.is_built(), reason="this torch is built with CUDA"
)
DEVICES = [
    "cpu:0",
    pytest.param("cuda", marks=needs_cuda),
    pytest.param("cuda:0", marks=needs_cuda),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch_rows", [0, 64])
def test_a_network_answers_on_its_device_as_on_the_cpu(device: str, batch_rows: int) -> None:
    cpu = load_model(ModelSource(BUNDLE))
    there = load_model(ModelSource(BUNDLE, device=device, batch_rows=batch_rows))
    assert there.info()["runtime"] == "torch"  # which "auto" means beside the CPU
    assert there.info()["device"] == device
    samples = parity_samples(cpu.golden().inputs[FEATURES])
    answers = probabilities_of(there.runtime, samples)
    assert (type(answers), answers.dtype) == (np.ndarray, np.float32)
    assert np.abs(answers - probabilities_of(cpu.runtime, samples)).max() <= 1e-4
    one = probabilities_of(there.runtime, samples[:1])
    assert np.abs(one - answers[:1]).max() <= 1e-5


@pytest.mark.parametrize("device", DEVICES)
def test_a_checkpoint_without_a_manifest_runs_on_a_device_too(tmp_path: Path, device: str) -> None:
    torch.save(foreign_checkpoint(), tmp_path / "model.pt")
    service = load(tmp_path, device=device, feature_names=("a", "b", "c", "d"))
    row = {FEATURES: np.ones((1, 4), dtype=np.float32)}
    assert sum(service.current().predict(row).probabilities) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("off", "serves"), [(5e-5, True), (5e-4, False)])
def test_golden_samples_may_differ_a_little_more_on_a_device(
    bundle: Path, off: float, serves: bool
) -> None:
    move_golden(bundle, off)
    assert "answers to the golden samples differ" in refusal(bundle, runtime="torch")
    if serves:
        load(bundle, device="cpu:0")
    else:
        assert "0.0001 is allowed" in refusal(bundle, device="cpu:0")


def test_products_of_matrices_are_not_computed_in_tf32() -> None:
    torch.set_float32_matmul_precision("high")
    TorchRuntime(make_network(), threads=torch.get_num_threads())
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_bundle_of_onnx_alone_needs_onnx_runtime_with_cuda(bundle: Path) -> None:
    change(bundle, lambda m: m["files"].pop("model.pt"))
    (bundle / "model.pt").unlink()
    assert "no ONNX Runtime with CUDA is installed" in refusal(bundle, device="cuda")


@without_cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_torch_without_cuda_says_so_and_the_service_stays_up(packed: Path, device: str) -> None:
    reason = refusal(packed, device=device)
    assert f"model.device is '{device}', and torch {torch.__version__} says: Torch not" in reason
    assert "build of torch lacks CUDA: install one that has it, or set model.device to" in reason


@pytest.mark.parametrize(
    ("devices", "device", "error", "said"),
    [
        (
            0,
            "cuda",
            RuntimeError("Found no NVIDIA driver on your system.\nPlease check"),
            "says: Found no NVIDIA driver on your system. Install the driver and let this process",
        ),
        (
            2,
            "cuda:2",
            RuntimeError("CUDA error: invalid device ordinal\nCompile with `TORCH_USE_CUDA_DSA`"),
            "Set it to one that torch finds here ('cuda:0', 'cuda:1'), or set model.device",
        ),
        (
            1,
            "cuda",
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB."),
            "9 GiB. Every worker has its own copy of the network there: set server.workers",
        ),
        (
            1,
            "cuda:0",
            RuntimeError("CUDA error: no kernel image is available for execution on the device"),
            "on the device. Install a build of torch that supports this device",
        ),
    ],
)
def test_what_torch_says_of_a_device_is_told_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
    devices: int,
    device: str,
    error: Exception,
    said: str,
) -> None:
    def fails(*_: Any) -> None:
        raise error

    network = make_network()
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.nn.Module, "to", fails)
    with pytest.raises(BundleError) as refused:
        TorchRuntime(network, threads=torch.get_num_threads(), device=device)
    assert said in str(refused.value)


def test_a_device_without_memory_for_the_first_pass_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    network = make_network()
    monkeypatch.setattr(type(network), "forward", fails)
    with pytest.raises(BundleError, match="says: CUDA out of memory. Every worker"):
        TorchRuntime(network, threads=torch.get_num_threads(), device="cpu:0")


def test_the_process_that_forks_the_workers_does_not_touch_cuda() -> None:
    """CUDA that was started before a fork can't be used after it."""
    program = """
import sys
import torch

def touched(*_, **__):
    raise SystemExit("CUDA was touched")

for name in ("_lazy_init", "init", "is_available", "device_count", "current_device"):
    setattr(torch.cuda, name, touched)
import wsgi
print("app.model.network" in sys.modules)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"LANTERN_MODEL__DEVICE": "cuda"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("True\n", "")
