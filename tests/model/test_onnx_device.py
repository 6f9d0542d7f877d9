"""ONNX Runtime on CUDA: the choice, the options and the sentences. No GPU is needed for these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from app.model import onnx_device, runtime
from app.model.errors import BundleError
from app.model.onnx_device import CPU, CUDA, check_device, providers_for
from app.model.onnx_runtime import OnnxRuntime
from app.model.runtime import choose_runtime
from tests.conftest import BUNDLE
from tests.model.test_onnx_runtime import NUMBER, endless
from tests.registry.test_service import refusal

INSTALL = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ONNX Runtime say that it is built with CUDA, as onnxruntime-gpu does."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])


def choose(choice: Any = "auto", device: str = "cuda", **has: bool) -> str:
    return choose_runtime(
        choice,
        has_onnx=has.get("onnx", True),
        has_checkpoint=has.get("checkpoint", False),
        device=device,
    )


@pytest.mark.usefixtures("with_cuda")
def test_a_graph_runs_on_cuda_by_onnx_runtime_and_a_checkpoint_by_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert choose() == choose("onnx") == choose(device="cuda:3") == "onnx"
    assert choose(checkpoint=True) == "torch"
    assert choose("onnx", checkpoint=True) == "onnx"
    assert choose("torch", checkpoint=True) == "torch"
    monkeypatch.setattr(runtime, "is_installed", lambda name: name != "torch")
    assert choose(checkpoint=True) == "onnx"
    with pytest.raises(BundleError, match="torch isn't installed: install it"):
        choose(checkpoint=True, onnx=False)


@pytest.mark.parametrize("choice", ["auto", "onnx"])
def test_without_cuda_the_line_that_installs_it_is_told(choice: str) -> None:
    with pytest.raises(BundleError) as refused:
        choose(choice)
    said = str(refused.value)
    assert "model.device is 'cuda', but no ONNX Runtime with CUDA is installed" in said
    assert f"Install onnxruntime-gpu in place of onnxruntime: `{INSTALL}`" in said
    assert "or set model.device to 'cpu'" in said


def test_a_checkpoint_without_torch_is_told_of_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "is_installed", lambda name: name != "torch")
    with pytest.raises(BundleError, match="Or install torch with CUDA, for this model"):
        choose(checkpoint=True)


@pytest.mark.usefixtures("with_cuda")
def test_both_packages_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_device, "has_both_packages", lambda: True)
    with pytest.raises(BundleError, match="both installed, and overwrite") as refused:
        choose()
    assert INSTALL in str(refused.value)
    assert choose(device="cpu") == "onnx"


def test_packages_are_found_by_what_is_installed(tmp_path: Path, monkeypatch: Any) -> None:
    assert not onnx_device.has_both_packages()
    for name in ("onnxruntime", "onnxruntime_gpu"):
        about = tmp_path / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Name: {name.replace('_', '-')}\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert onnx_device.has_both_packages()


@pytest.mark.usefixtures("with_cuda")
@pytest.mark.parametrize(("device", "number"), [("cuda", "0"), ("cuda:0", "0"), ("cuda:12", "12")])
def test_a_session_has_the_device_and_no_tf32(device: str, number: str) -> None:
    assert providers_for(device) == [(CUDA, {"device_id": number, "use_tf32": "0"}), CPU]
    assert providers_for("cpu") == [CPU]


def test_another_device_is_refused() -> None:
    with pytest.raises(BundleError, match="'cpu:0', which ONNX Runtime can't use"):
        choose("onnx", device="cpu:0")


class Session:
    """What is asked of a session, one that has ``providers``."""

    def __init__(self, *providers: str) -> None:
        self._providers = [*providers]
        self.falls_back = True

    def get_providers(self) -> list[str]:
        return self._providers

    def disable_fallback(self) -> None:
        self.falls_back = False


def test_a_session_that_fell_back_to_the_cpu_is_refused() -> None:
    with pytest.raises(BundleError, match="would run on the CPU. Check the driver"):
        check_device(Session(CPU), "cuda")
    there = Session(CUDA, CPU)
    check_device(there, "cuda:1")
    assert not there.falls_back
    check_device(Session(CPU), "cpu")


@pytest.mark.usefixtures("with_cuda")
def test_a_provider_that_can_not_be_loaded_is_an_error_and_no_slow_answer(tmp_path: Path) -> None:
    """The session of this build has no CUDA, whatever it says: the real fall back to the CPU."""
    with pytest.raises(BundleError, match="cuda:1"):
        OnnxRuntime(endless(tmp_path / "g.onnx"), 1, NUMBER, device="cuda:1")
    reason = refusal(BUNDLE, runtime="onnx", device="cuda")
    assert "model.device is 'cuda'" in reason or "on 'cuda'" in reason
