"""Large networks, of random weights, as the bare checkpoints that the README describes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import payloads

if TYPE_CHECKING:
    import torch


def settings(path: Path) -> dict[str, str]:
    """Return the settings with which Lantern serves such a checkpoint."""
    return {
        "LANTERN_MODEL__PATH": str(path),
        "LANTERN_MODEL__FEATURE_NAMES": ",".join(payloads.feature_names()),
    }


def write(path: Path, width: int) -> None:
    """Write three linear layers, ``width`` units in each of the hidden ones."""
    import torch

    torch.save(
        {
            "model_state_dict": _network(width).state_dict(),
            "input_dim": len(payloads.feature_names()),
            "hidden_dim": width,
            "output_dim": 2,
            "version": "1",
        },
        path,
    )


def forward_ms(width: int) -> float:
    """Time one row through such a network, on one thread: the fastest of ten, in milliseconds."""
    import torch

    torch.set_num_threads(1)
    network = _network(width)
    row = torch.ones(1, len(payloads.feature_names()))
    times = []
    with torch.inference_mode():
        for _ in range(10):
            began = time.perf_counter()
            network(row)
            times.append(time.perf_counter() - began)
    return min(times) * 1e3


def _network(width: int) -> torch.nn.Sequential:
    from torch import nn

    return nn.Sequential(
        nn.Linear(len(payloads.feature_names()), width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 2),
    )
