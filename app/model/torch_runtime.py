"""The runtime of PyTorch, for checkpoints of Lantern's own network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError, first_line
from .run_limits import UNLIMITED, RunLimits
from .signature import FEATURES, PROBABILITIES, Tensors

if TYPE_CHECKING:
    from .network import Network


class TorchRuntime:
    """Runs a classifier in PyTorch, in inference mode, on ``device``: "cpu", "cuda" or "cuda:N".

    The network is moved there once, here: create it after the fork, which CUDA doesn't survive.
    Matrix products are computed in float32, not in TF32, so that a GPU answers as a CPU does.
    Raises `BundleError` if torch can't use the device, or the network doesn't fit on it. ``limits``
    are those of a run, which raises `RunTooLarge`; it has no loop that could make it run too long.
    """

    name = "torch"

    def __init__(
        self,
        network: Network,
        threads: int,
        device: str = "cpu",
        limits: RunLimits = UNLIMITED,
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")
        self._torch = torch
        network = network.eval()
        self._network = network if device == "cpu" else _moved(network, device)
        self.device = device
        self._limits = limits

    def run(self, inputs: Tensors) -> Tensors:
        torch, matrix = self._torch, inputs[FEATURES]
        if not matrix.flags.writeable:  # a view of a body, say; torch has no tensor of that kind
            matrix = matrix.copy()
        try:
            with torch.inference_mode():
                logits = self._network(torch.from_numpy(matrix).to(self.device))
                probabilities: NDArray[np.float32] = torch.softmax(logits, dim=1).cpu().numpy()
        except RuntimeError as error:
            self._limits.check_memory(error)
            raise
        return {PROBABILITIES: probabilities}

    def time_limit(self, seconds: float) -> AbstractContextManager[None]:
        """Return a context without a limit: our own network has no loop."""
        return nullcontext()


def _moved(network: Network, device: str) -> Network:
    """Move ``network`` to ``device`` and run it there once, so that failures show now."""
    import torch

    try:
        network = network.to(device)
        network(torch.zeros(1, network.dims[0], device=device))
    # torch without CUDA raises AssertionError.
    except (RuntimeError, AssertionError) as error:
        raise BundleError(
            f"model.device is {device!r}, and torch {torch.__version__} says: "
            f"{first_line(error)}. {_remedy(device, error)}, or set model.device to 'cpu'."
        ) from error
    return network


def _remedy(device: str, error: BaseException) -> str:
    """Return what to do about ``error``, which torch raised for ``device``."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return (
            "Every worker has its own copy of the network there: set server.workers lower, or free "
            "memory of the device"
        )
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return "This build of torch lacks CUDA: install one that has it"
    devices = torch.cuda.device_count()
    if not devices:
        return (
            "Install the driver and let this process see a device (CUDA_VISIBLE_DEVICES, a "
            "container's --gpus)"
        )
    if int(device.partition(":")[2] or 0) >= devices:
        there = ", ".join(f"'cuda:{index}'" for index in range(devices))
        return f"Set it to one that torch finds here ({there})"
    return "Install a build of torch that supports this device and its driver"
