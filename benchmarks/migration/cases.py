"""The cases: a model as each server takes it, and what its callers send."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.servers import PEERS, ROOT

DIGITS, PHOTOS, SENTENCES = "digits", "photos", "sentences"
ARCHIVE = ROOT / "tests" / "packing" / "cases" / "mar_digits"
"""An archive with a handler of its own, for pictures of 8x8, and three of these."""
TOKENIZER = ROOT / "tests" / "model" / "steps" / "data" / "tokenizer.json"
_PICTURES = 8
_WIDTH, _HEIGHT = 500, 400
_QUALITY = 90
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TOPICS = ("billing", "delivery", "account")
_TINY_PICTURE = f"""
kind = "image"
input = "pixels"
mode = "L"
resize = {{width = 8, height = 8}}
filter = "bicubic"
scale = {1 / 255}
mean = [0.5]
std = [0.5]
"""
_PICTURE = f"""
kind = "image"
input = "pixels"
resize = {{shorter = 256}}
crop = {{width = 224, height = 224}}
scale = {1 / 255}
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""
_SENTENCE = f"""
kind = "text"
tokenizer = "{TOKENIZER}"
max_length = 32
input_ids = "input_ids"
attention_mask = "attention_mask"
"""
_SENTENCES = (
    "where is my parcel",
    "i was charged twice for one order and want my money back",
    "cannot log in to my account with the new password",
    "the parcel was not delivered",
    "my order is wrong, please send the right one",
    "how do i change my password",
    "the money is not back on my card",
    "is my order on its way",
)


@dataclass(frozen=True)
class Case:
    """A model as an archive of TorchServe and as ONNX, the steps to it as data, and the bodies.

    The answer to each is the ``top`` most probable of ``labels``, with their probabilities.
    """

    name: str
    archive: Path
    network: Path
    labels: tuple[str, ...]
    top: int
    steps: str
    """As a features file has them."""
    bodies: tuple[Path, ...]
    content_type: str
    takes_long: bool = False
    """An answer takes so long that each has to be awaited, or many of them are lost at the end."""
    own_handler: bool = False
    """The archive is one that its owner has, with a handler that is to be carried over."""


def make_digits(directory: Path) -> Case:
    """Make the case of a small network with a handler of its own, for tiny PNGs."""
    import torch

    from benchmarks.migration.networks import network_of, write_onnx

    archive = ARCHIVE / "digits.mar"
    network = directory / "digits.onnx"
    example = [torch.zeros(2, 1, 8, 8)]
    write_onnx(network_of(archive), example, network, {"pixels": {0: "rows"}})
    bodies = tuple(ARCHIVE / f"digit{number}.png" for number in range(3))
    return Case(
        DIGITS, archive, network, _DIGITS, 3, _TINY_PICTURE, bodies, "image/png", own_handler=True
    )


def make_photos(directory: Path) -> Case:
    """Make the case of a network of ResNet-18's size, for JPEGs of 500x400."""
    import torch

    from benchmarks.migration.networks import RESNET_CLASSES, resnet18, write_onnx, write_script

    labels = tuple(f"class {number}" for number in range(RESNET_CLASSES))
    network, example = resnet18(), [torch.zeros(2, 3, 224, 224)]
    script, graph = directory / "photos.pt", directory / "photos.onnx"
    write_script(network, example, script)
    write_onnx(network, example, graph, {"pixels": {0: "rows"}})
    archive = write_archive(
        directory / "photos.mar", script, labels, PEERS / "torchserve" / "photos.py"
    )
    return Case(
        PHOTOS,
        archive,
        graph,
        labels,
        5,
        _PICTURE,
        write_photos(directory),
        "image/jpeg",
        takes_long=True,
    )


def make_sentences(directory: Path) -> Case:
    """Make the case of a BERT of two layers, for sentences."""
    import torch
    from tokenizers import Tokenizer

    from benchmarks.migration.networks import bert, write_onnx, write_script

    vocabulary = Tokenizer.from_file(str(TOKENIZER)).get_vocab_size()
    network = bert(vocabulary, len(_TOPICS))
    example = [torch.ones(2, 9, dtype=torch.int64), torch.ones(2, 9, dtype=torch.int64)]
    script, graph = directory / "sentences.pt", directory / "sentences.onnx"
    write_script(network, example, script)
    axes = {0: "rows", 1: "tokens"}
    write_onnx(network, example, graph, {"input_ids": axes, "attention_mask": axes})
    handler = PEERS / "torchserve" / "sentences.py"
    archive = write_archive(directory / "sentences.mar", script, _TOPICS, handler, TOKENIZER)
    bodies = []
    for number, sentence in enumerate(_SENTENCES):
        bodies.append(directory / f"sentence-{number}.json")
        bodies[-1].write_text(json.dumps({"data": sentence}), encoding="utf-8")
    return Case(SENTENCES, archive, graph, _TOPICS, 3, _SENTENCE, tuple(bodies), "application/json")


CASES: dict[str, Callable[[Path], Case]] = {
    DIGITS: make_digits,
    PHOTOS: make_photos,
    SENTENCES: make_sentences,
}


def write_photos(directory: Path) -> tuple[Path, ...]:
    """Write JPEGs of smooth random colours with some grain, which compress as photographs do."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(500)
    paths = []
    for number in range(_PICTURES):
        colours = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        smooth = Image.fromarray(colours).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
        grain = random.normal(0, 6, (_HEIGHT, _WIDTH, 3))
        pixels = (np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)
        paths.append(directory / f"photo-{number}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=_QUALITY)
    return tuple(paths)


def write_archive(
    path: Path, script: Path, labels: Sequence[str], handler: Path, *extra: Path
) -> Path:
    """Write an archive as ``torch-model-archiver`` does, of TorchScript and a handler."""
    about: dict[str, Any] = {
        "runtime": "python",
        "model": {
            "modelName": path.stem,
            "modelVersion": "1.0",
            "serializedFile": script.name,
            "handler": handler.name,
        },
        "archiverVersion": "0.12.0",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (script, handler, *extra):
            archive.write(file, file.name)
        names = {str(number): label for number, label in enumerate(labels)}
        archive.writestr("index_to_name.json", json.dumps(names))
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(about))
    return path
