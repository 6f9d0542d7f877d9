"""What the files of a directory say, read as data: whether it can be packed at all.

This module must not import transformers: what it refuses never gets there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ...model import manifest_file
from ...model.errors import BundleError, listed
from ...version import FOR_PACKING
from ..json_files import read_object

CONFIG = "config.json"
_WITH_CODE = (CONFIG, "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
"""The files in which a directory may ask for code of its own."""
_CODE = ("auto_map", "custom_pipelines")
_LARGEST = 16 << 20
_WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
Kind = Literal["text", "image"]
_KINDS: Mapping[str, Kind] = {
    "ForSequenceClassification": "text",
    "ForImageClassification": "image",
}


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory with a classifier: its architecture, and what it classifies."""

    path: Path
    architecture: str
    kind: Kind


NEEDED = "transformers"
"""The library, which is the owner's to install."""


def is_directory(path: Path) -> bool:
    """Return True for a directory that may be one of transformers."""
    is_bundle = (path / manifest_file.FILE_NAME).exists()
    return path.is_dir() and (path / CONFIG).is_file() and not is_bundle


def check_directory(path: Path) -> None:
    """Raise `BundleError` for another directory, or if the library is missing that reads it."""
    if not is_directory(path):
        raise BundleError(
            f"{path} is a directory without {CONFIG}. What is packed is a file (.onnx, .pt2, .pt), "
            "or a directory of transformers, as model.save_pretrained(DIR) and "
            "tokenizer.save_pretrained(DIR) write it."
        )
    if find_spec(NEEDED) is None:
        raise BundleError(
            f"{path} is a directory of transformers, which must be installed to pack it (not to "
            f"serve it), with what packing takes: pip install {NEEDED} {FOR_PACKING}"
        )


def read_directory(path: Path) -> Directory:
    """Return what is in ``path``. Raises `BundleError` for what isn't packed, by its name."""
    for name in _WITH_CODE:
        if (path / name).is_file():
            _refuse_code(path / name, read_object(path / name, _LARGEST))
    config = read_object(path / CONFIG, _LARGEST)
    if config.get("quantization_config"):
        raise BundleError(
            f"{path / CONFIG} has quantization_config: quantised weights aren't packed. Pack the "
            "model they were made of."
        )
    if (path / "adapter_config.json").exists():
        raise BundleError(
            f"{path} is an adapter (adapter_config.json). Merge it into its model, and pack that: "
            "model.merge_and_unload().save_pretrained(DIR)"
        )
    architecture, kind = _architecture(path, config)
    if not any((path / name).is_file() for name in _WEIGHTS):
        raise BundleError(
            f"{path} has no weights: {_WEIGHTS[0]} or {_WEIGHTS[2]}, or the index of their parts."
        )
    return Directory(path, architecture, kind)


def _architecture(path: Path, config: Mapping[str, Any]) -> tuple[str, Kind]:
    found = config.get("architectures")
    names = [str(name) for name in found] if isinstance(found, list) else []
    for suffix, kind in _KINDS.items():
        if len(names) == 1 and names[0].endswith(suffix):
            return names[0], kind
    wanted = " or ".join(f"*{suffix}" for suffix in _KINDS)
    raise BundleError(
        f"{path / CONFIG}: architectures is {listed(names)}, and what is packed is {wanted}. "
        "Export another model yourself, as ONNX or .pt2, and pack that."
    )


def _refuse_code(path: Path, document: Any) -> None:
    found = next((key for key in _keys(document) if key in _CODE), None)
    if found:
        raise BundleError(
            f"{path} asks for code of its own ({found}), which is never run. Export the model "
            "where you trust its code, as ONNX or .pt2, and pack that."
        )


def _keys(document: Any) -> Iterator[str]:
    """Yield the keys of all objects in a document."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
