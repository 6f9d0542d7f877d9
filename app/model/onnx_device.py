"""Devices of ONNX Runtime: its CUDA provider, which only the package ``onnxruntime-gpu`` has.

It can't be installed beside ``onnxruntime``: both have their files in the same directory, so the
one that was installed last wins, or neither works.
"""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any

from .errors import BundleError

# ONNX Runtime sends telemetry to its vendor, from threads that it starts on import and that don't
# survive a fork: a worker then hangs or aborts on exit. This must be set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
_INSTALL = "`pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu`"


def providers_for(device: str) -> list[str | tuple[str, dict[str, str]]]:
    """Return the providers of a session on ``device``, the preferred one first.

    Operations that CUDA lacks run on the CPU, as those on shapes always do. Products are computed
    in float32, not in TF32, so that a GPU answers as a CPU does. Raises `BundleError` if ONNX
    Runtime as it is installed has no CUDA.
    """
    if device == "cpu":
        return [CPU]
    check_installed(device)
    number = device.partition(":")[2] or "0"
    return [(CUDA, {"device_id": number, "use_tf32": "0"}), CPU]


def check_installed(device: str) -> None:
    """Raise `BundleError` unless ONNX Runtime, as it is installed, can run on ``device``."""
    if device == "cpu":
        return
    if not device.startswith("cuda"):
        raise BundleError(f"model.device is {device!r}, which ONNX Runtime can't use; set 'cpu'.")
    if has_both_packages():
        raise BundleError(
            f"model.device is {device!r}, but onnxruntime and onnxruntime-gpu are both installed, "
            f"and overwrite each other's files. Install only the second: {_INSTALL}."
        )
    if CUDA not in _available():
        raise BundleError(
            f"model.device is {device!r}, but no ONNX Runtime with CUDA is installed. Install "
            f"onnxruntime-gpu in place of onnxruntime: {_INSTALL}; or set model.device to 'cpu'."
        )


def _available() -> list[str]:
    try:
        import onnxruntime
    except ImportError:
        return []
    found: list[str] = onnxruntime.get_available_providers()
    return found


def has_both_packages() -> bool:
    """Return True if both packages of ONNX Runtime are installed."""
    names = ("onnxruntime", "onnxruntime-gpu")
    return all(any(importlib.metadata.distributions(name=name)) for name in names)


def check_device(session: Any, device: str) -> None:
    """Raise `BundleError` unless ``session`` runs on ``device``.

    ONNX Runtime uses the CPU without a word if it can't load a provider (a missing library of CUDA,
    no driver, no such device). It must not do so later, either.
    """
    if device == "cpu":
        return
    used = session.get_providers()
    if used[:1] != [CUDA]:
        raise BundleError(
            f"model.device is {device!r}, but ONNX Runtime can't use it, and would run on the CPU. "
            "Check the driver, that this process sees the device (CUDA_VISIBLE_DEVICES, a "
            "container's --gpus), and that CUDA and cuDNN of the versions that onnxruntime-gpu "
            "requires are installed; or set model.device to 'cpu'."
        )
    session.disable_fallback()
