"""The network: preprocessing and classifier as torch modules, and how a checkpoint becomes one.

Preprocessing is part of the network, as modules with buffers of one value per feature: it is
vectorised, saved and exported with the weights, and can't drift from training. This module imports
torch; serving with ONNX Runtime never imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint_scan import scan_checkpoint
from .errors import BundleError, first_line, listed, shown
from .file_kind import state_alone
from .manifest import VERSION, VERSION_FORM

DROPOUT = 0.3
CHECKPOINT_KEYS = ("model_state_dict", "input_dim", "hidden_dim", "output_dim", "version")
LARGEST_DIM = 1_000_000
"""More inputs, units or outputs than this are taken for a mistake."""
_LONGEST_KEY = 64
_LARGEST_READ = 4 << 20
"""The most bytes of a checkpoint of which every worker has its own copy."""
STANDARD_SCORE_LIMIT = 10.0
"""Standard scores are clipped to this many deviations: no input, however extreme, can overflow
float32 in the network, or make it extrapolate without limit."""


class Impute(nn.Module):
    """Replace NaN by the feature's median in training."""

    median: Tensor

    def __init__(self, median: Tensor) -> None:
        super().__init__()
        self.register_buffer("median", median)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(torch.isnan(x), self.median, x)


class Clip(nn.Module):
    """Clip each feature to ``minimum`` and ``maximum`` (infinite if it has none)."""

    minimum: Tensor
    maximum: Tensor

    def __init__(self, minimum: Tensor, maximum: Tensor) -> None:
        super().__init__()
        self.register_buffer("minimum", minimum)
        self.register_buffer("maximum", maximum)

    def forward(self, x: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(x, self.minimum), self.maximum)


class Log1p(nn.Module):
    """Replace the features marked in ``selected`` by ``log(1 + max(x, 0))``; keep the others.

    The logarithm is undefined at -1 and below, so negative values count as zero.
    """

    selected: Tensor

    def __init__(self, selected: Tensor) -> None:
        super().__init__()
        self.register_buffer("selected", selected)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self.selected, torch.log1p(torch.clamp(x, min=0.0)), x)


class Standardise(nn.Module):
    """Return standard scores ``(x - mean) / scale``, clipped to ±``STANDARD_SCORE_LIMIT``."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        score = (x - self.mean) / self.scale
        return torch.clamp(score, -STANDARD_SCORE_LIMIT, STANDARD_SCORE_LIMIT)


class Preprocessing(nn.Module):
    """Impute, clip, take logarithms and standardise: ``(n, d)`` raw float32 to ``(n, d)`` scores.

    Imputing comes first so that no later step sees a NaN; every buffer has shape ``(d,)``.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.impute = Impute(torch.zeros(width))
        self.clip = Clip(torch.full((width,), -torch.inf), torch.full((width,), torch.inf))
        self.log1p = Log1p(torch.zeros(width, dtype=torch.bool))
        self.standardise = Standardise(torch.zeros(width), torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.standardise(self.log1p(self.clip(self.impute(x))))
        return scores


class Network(nn.Module):
    """Raw features ``(n, input_dim)`` float32 to logits ``(n, output_dim)`` float32."""

    def __init__(
        self, input_dim: int, hidden_dim: int, output_dim: int, *, preprocess: bool = True
    ) -> None:
        super().__init__()
        self.dims = (input_dim, hidden_dim, output_dim)
        self.preprocessing = Preprocessing(input_dim) if preprocess else nn.Identity()
        self.classifier = nn.Sequential(
            nn.Linear(input_dim, hidden_dim),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(hidden_dim, output_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.preprocessing(x))
        return logits


class Probabilities(nn.Module):
    """A network that returns softmax probabilities: this is what is exported to ONNX."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        return torch.softmax(self.network(features), dim=1)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The five keys of a checkpoint file, checked."""

    state_dict: dict[str, Tensor]
    input_dim: int
    hidden_dim: int
    output_dim: int
    version: str


def save_checkpoint(network: Network, version: str, path: Path) -> None:
    """Write ``network`` to ``path`` as a checkpoint with the five keys."""
    input_dim, hidden_dim, output_dim = network.dims
    values = (network.state_dict(), input_dim, hidden_dim, output_dim, version)
    torch.save(dict(zip(CHECKPOINT_KEYS, values, strict=True)), path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and check a checkpoint; large weights are mapped from the file, so workers share them.

    Only float32 weights are shared; others are converted, with a copy per worker. Writes to a
    mapped file would change the answers, so small files are read instead. Only tensors and plain
    values are read (``weights_only=True``), after `scan_checkpoint` has checked that they lie
    within the file. Raises `BundleError`, which names the file and what is wrong with it.
    """
    if not path.is_file():
        raise BundleError(f"{path} does not exist, or is not a regular file.")
    scan_checkpoint(path)
    try:
        content = torch.load(
            path,
            map_location="cpu",
            weights_only=True,
            mmap=path.stat().st_size > _LARGEST_READ,
        )
    except Exception as error:  # torch raises various exceptions for a damaged file
        raise BundleError(f"{path} can't be read as a checkpoint: {first_line(error)}.") from error
    return _checked(content, path)


def build_network(checkpoint: Checkpoint) -> Network:
    """Build the network of a checkpoint, with the checkpoint's own tensors as parameters.

    A state dictionary of ours (with preprocessing) fits by name. Any other fits if its tensors are
    exactly three linear layers, in order, under any names: a classifier trained elsewhere, without
    preprocessing. Raises `BundleError` for everything else.
    """
    dims = (checkpoint.input_dim, checkpoint.hidden_dim, checkpoint.output_dim)
    ours = any(name.startswith("preprocessing.") for name in checkpoint.state_dict)
    state = checkpoint.state_dict if ours else _linear_layers(checkpoint)
    try:
        with torch.device("meta"):  # no memory for weights that are replaced at once
            network = Network(*dims, preprocess=ours)
        network.load_state_dict(state, assign=True)
        network.eval().requires_grad_(False)
    except (RuntimeError, TypeError) as error:
        raise BundleError(
            f"The checkpoint's tensors don't fit a network of {dims} inputs, hidden units and "
            f"outputs: {_misfit(error)}. Is it from another network than Lantern's? "
            f"{state_alone('model_state_dict')}"
        ) from error
    for name, tensor in network.state_dict().items():
        wanted = torch.bool if name.endswith(".selected") else torch.float32
        if tensor.dtype is not wanted:
            raise BundleError(f"The checkpoint's {name} is {tensor.dtype}, not {wanted}.")
    return network


def _misfit(error: Exception) -> str:
    """Return torch's message on the first tensor that doesn't fit; its first line says nothing."""
    lines = str(error)[:2_000].strip().splitlines()
    return " ".join(lines[1:2] or lines)[:300].strip().rstrip(".")


def _state_key(content: Mapping[Any, Any]) -> str:
    """Return under which key another network's weights are; "" if they are all there is."""
    for key, value in content.items():
        weights = isinstance(value, Mapping) and [*value.values()]
        named = isinstance(key, str) and len(key) <= _LONGEST_KEY and key.isidentifier()
        if named and weights and all(isinstance(weight, Tensor) for weight in weights):
            return str(key)
    return ""


def _checked(content: Any, path: Path) -> Checkpoint:
    if not isinstance(content, Mapping):
        raise BundleError(
            f"{path} holds {shown(content)}, not a dictionary with the keys "
            f"{', '.join(CHECKPOINT_KEYS)}."
        )
    missing = [key for key in CHECKPOINT_KEYS if key not in content]
    if missing:
        raise BundleError(
            f"{path} lacks the key(s) {', '.join(missing)} of a checkpoint of Lantern's own "
            f"network. It has: {listed(map(str, content))}. {state_alone(_state_key(content))}"
        )
    dims: dict[str, int] = {}
    for key, least in (("input_dim", 1), ("hidden_dim", 1), ("output_dim", 2)):
        value = content[key]
        if type(value) is not int or not least <= value <= LARGEST_DIM:
            raise BundleError(
                f"{path}: {key} must be an integer of at least {least} and at most "
                f"{LARGEST_DIM:,}, not {shown(value)}."
            )
        dims[key] = value
    version = content["version"]
    plain = type(version) in (str, float) or (type(version) is int and abs(version) < 2**63)
    if not plain or not VERSION.fullmatch(str(version)):
        raise BundleError(f"{path}: version must be {VERSION_FORM}; it is {shown(version)}.")
    state = content["model_state_dict"]
    if not isinstance(state, Mapping):
        raise BundleError(f"{path}: model_state_dict is not a state dictionary.")
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise BundleError(
                f"{path}: model_state_dict holds {shown(name)}, which is not a tensor."
            )
        if tensor.layout is not torch.strided or tensor.is_complex() or tensor.is_quantized:
            raise BundleError(
                f"{path}: {name[:80]} is sparse, complex or quantised; only dense tensors of real "
                "numbers are served."
            )
        tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
    return Checkpoint(
        tensors, dims["input_dim"], dims["hidden_dim"], dims["output_dim"], str(version)
    )


def _linear_layers(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Rename three linear layers, in the order of the state dictionary, to our names."""
    layers = ("classifier.0", "classifier.3", "classifier.6")
    wanted = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    given = list(checkpoint.state_dict)
    kinds = [name.rpartition(".")[2] for name in given]
    if kinds != ["weight", "bias"] * len(layers):
        raise BundleError(
            "A checkpoint without preprocessing must hold three linear layers (weight and bias of "
            f"each, in order) and nothing else; this one holds: {listed(given)}. It is from "
            f"another network than Lantern's. {state_alone('model_state_dict')}"
        )
    return dict(zip(wanted, checkpoint.state_dict.values(), strict=True))
