"""The networks: random weights from a fixed seed, as TorchScript and as ONNX with a softmax.

They are what they are called in size and shape alone; what is measured is not how well they
classify.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from app.packing.network import quiet_exporter

RESNET_CLASSES = 1000
_OPSET = 17


class Block(nn.Module):
    """Two convolutions of 3x3, and what goes past them."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.past: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.past = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.past(x))


def resnet18() -> nn.Module:
    """Return a network of ResNet-18's layers: 11.7 million weights, images of 224x224.

    Its last weights are large, so that its most probable classes are not all equally probable.
    """
    torch.manual_seed(18)
    last = nn.Linear(512, RESNET_CLASSES)
    nn.init.normal_(last.weight, std=1.0)
    blocks = [Block(64, 64, 1), Block(64, 64, 1)]
    for channels in (64, 128, 256):
        blocks += [Block(channels, 2 * channels, 2), Block(2 * channels, 2 * channels, 1)]
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        last,
    ).eval()


class Layer(nn.Module):
    """A layer of an encoder: attention of several heads, and a network for each token."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.attended, self.answered = nn.LayerNorm(width), nn.LayerNorm(width)
        self.network = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), x.size(1), self.heads, self.size).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        weights = torch.softmax(q @ k.transpose(2, 3) / self.size**0.5 + mask, dim=-1)
        x = self.attended(x + self.out((weights @ v).transpose(1, 2).flatten(2)))
        return self.answered(x + self.network(x))  # type: ignore[no-any-return]


class Bert(nn.Module):
    """A classifier of BERT's shape: two layers, 32 wide, of four heads."""

    def __init__(self, vocabulary: int, classes: int, width: int = 32, longest: int = 32) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(longest, width)
        self.embedded = nn.LayerNorm(width)
        self.first, self.second = Layer(width, 4), Layer(width, 4)
        self.pooled, self.classes = nn.Linear(width, width), nn.Linear(width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        places = torch.arange(input_ids.size(1), device=input_ids.device)
        mask = (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * -1e4
        x = self.embedded(self.words(input_ids) + self.places(places))
        x = self.second(self.first(x, mask), mask)
        return self.classes(torch.tanh(self.pooled(x[:, 0])))  # type: ignore[no-any-return]


def bert(vocabulary: int, classes: int) -> nn.Module:
    """Return a `Bert` with random weights."""
    torch.manual_seed(2)
    return Bert(vocabulary, classes).eval()


def network_of(archive: Path) -> nn.Module:
    """Return the network of an archive of TorchServe in eager mode. Its ``model.py`` runs."""
    with zipfile.ZipFile(archive) as files:
        source, weights = files.read("model.py"), files.read("digits.pt")
    spec = importlib.util.spec_from_loader("archived_model", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    exec(compile(source, "model.py", "exec"), module.__dict__)  # noqa: S102 - a file of this project
    network: nn.Module = module.Digits()
    network.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True))
    return network.eval()


class _Probabilities(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.softmax(self.network(*tensors), dim=1)


def write_script(network: nn.Module, example: Sequence[Tensor], path: Path) -> None:
    """Write a network as TorchScript."""
    with quiet_exporter():
        torch.jit.save(torch.jit.trace(network, tuple(example)), str(path))  # type: ignore[no-untyped-call]


def write_onnx(
    network: nn.Module, example: Sequence[Tensor], path: Path, axes: dict[str, dict[int, str]]
) -> None:
    """Write a network with a softmax behind it; ``axes`` names what varies of each input."""
    with quiet_exporter():
        torch.onnx.export(
            _Probabilities(network).eval(),
            tuple(example),
            str(path),
            input_names=list(axes),
            output_names=["probabilities"],
            dynamic_axes={**axes, "probabilities": {0: "rows"}},
            opset_version=_OPSET,
            dynamo=False,
        )
