"""Runtimes: what executes a network. Each takes arrays by the names of the network's inputs, and
returns arrays by those of its outputs.

A runtime imports its library when it is created, so a process only pays for the one it uses.
Threads are bounded there: a worker is one of several on its machine.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Literal, Protocol

from ..version import FOR_TORCH
from .errors import BundleError, InputsRejected
from .onnx_device import check_installed
from .signature import Tensors

BatchRows = int | Literal["auto"]
"""The most rows that run together, 0 for those of one request; "auto" is 0 for models that don't
take long, and else as many as make each cheaper, at most `SHARED_ROWS`.
"""
SHARED_ROWS = 64
RuntimeChoice = Literal["auto", "torch", "onnx"]


class Runtime(Protocol):
    """Executes one network; thread-safe."""

    name: str
    device: str

    def run(self, inputs: Tensors) -> Tensors:
        """Return the outputs of the network for all its ``inputs``."""
        ...

    def time_limit(self, seconds: float) -> AbstractContextManager[None]:
        """Return a context in which runs must end in time: the network may loop forever.

        Raises `BundleError` if they don't.
        """
        ...


class NoNetwork:
    """Stands for the network of a bundle that has none: its handler predicts by itself."""

    name = "handler"
    device = "cpu"

    def run(self, inputs: Tensors) -> Tensors:
        """Refuse: there is nothing to run."""
        raise InputsRejected("it has a handler, which takes whole requests, and no tensors")

    def time_limit(self, seconds: float) -> AbstractContextManager[None]:
        """See `Runtime`; the code of a handler can't be stopped."""
        return nullcontext()


def choose_runtime(
    choice: RuntimeChoice, *, has_onnx: bool, has_checkpoint: bool, device: str = "cpu"
) -> str:
    """Return the name of the runtime to use: by default ONNX Runtime, if possible.

    On another device than the CPU it is torch by default, if the bundle has a checkpoint and torch
    is installed. Raises `BundleError` if the bundle lacks what the runtime executes, or if the
    runtime can't use ``device`` or isn't installed.
    """
    on_cpu = device == "cpu"
    name = choice
    if name == "auto":
        prefers_torch = not on_cpu and has_checkpoint and (is_installed("torch") or not has_onnx)
        name = "torch" if prefers_torch or not has_onnx else "onnx"
    if name == "onnx" and not has_onnx:
        raise BundleError(
            "model.runtime is 'onnx', but this model has no model.onnx; use 'auto' or 'torch'."
        )
    if name == "onnx":
        _check_onnx(device, or_torch=choice == "auto" and has_checkpoint)
    if name == "torch" and not has_checkpoint:
        raise BundleError(
            "model.runtime is 'torch', but this model has no model.pt; use 'auto' or 'onnx'."
        )
    if name == "torch" and not is_installed(name):
        reason = "model.runtime is 'torch'" if choice == "torch" else "This model has no model.onnx"
        raise BundleError(
            f"{reason}, but torch isn't installed: install it (`pip install {FOR_TORCH}`; in an "
            "image: build it without --target onnx), or serve a model.onnx by ONNX Runtime."
        )
    return name


def _check_onnx(device: str, *, or_torch: bool) -> None:
    """Raise `BundleError` unless ONNX Runtime can run on ``device``, or torch could."""
    try:
        check_installed(device)
    except BundleError as error:
        if not or_torch:
            raise
        line = f"Or install torch with CUDA, for this model: `pip install {FOR_TORCH}`."
        raise BundleError(f"{error} {line}") from error


def is_installed(runtime: str) -> bool:
    """Return True if the library of ``runtime`` is installed, without importing it."""
    return find_spec({"torch": "torch", "onnx": "onnxruntime"}[runtime]) is not None


def import_library(runtime: str) -> None:
    """Import what ``runtime`` needs; no thread is started, so it is safe before a fork, and then
    shared.
    """
    module = {"torch": ".network", "onnx": "onnxruntime"}.get(runtime)
    if module is not None:
        importlib.import_module(module, __package__)
