"""The content of an archive of TorchServe: its manifest, its handler, the names of its classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson
from msgspec import Struct

from ...documents.schema import SchemaError, read_as
from ...documents.text import NotUtf8, decode
from ...model.code.torchserve.util import label_mapping
from ...model.errors import BundleError, listed, shown
from ...model.manifest import LONGEST_NAME
from .container import METADATA, Unpacked

CLASSES_FILE = "index_to_name.json"
_LARGEST_TEXT = 4 << 20
"""Bytes of a file at most that is read here."""
_OWN_HANDLERS = (
    *("base_handler", "image_classifier", "image_segmenter", "object_detector"),
    *("text_classifier", "dali_image_classifier", "vllm_handler", "trt_llm_handler"),
)
"""TorchServe's own handlers, which an archive names and doesn't contain."""


class _Model(Struct):
    handler: str
    modelName: str = ""  # noqa: N815 - the archive's words
    modelVersion: str = ""  # noqa: N815
    serializedFile: str = ""  # noqa: N815
    modelFile: str = ""  # noqa: N815
    requirementsFile: str = ""  # noqa: N815
    configFile: str = ""  # noqa: N815
    sourceVocab: str = ""  # noqa: N815


class _Manifest(Struct):
    model: _Model
    runtime: str = "python"


@dataclass(frozen=True, slots=True)
class TorchServeModel:
    """The model in an archive.

    ``own_handler`` is one of TorchServe's own that it uses; empty for a handler in the archive,
    whose file is ``handler_file``. ``names`` are those of the classes in their order, as the
    archive has them; ``classes`` are empty where it doesn't name them, or not each by another name.
    """

    name: str
    version: str
    own_handler: str
    handler_file: str
    serialized_file: str
    model_file: str
    vocabulary_file: str
    requirements: tuple[str, ...]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    def described(self, path: Path) -> str:
        """Return the description of a bundle that is made of it."""
        return f"{self.name or path.name} {self.version}, from an archive of TorchServe."


def read_model(unpacked: Unpacked, path: Path) -> TorchServeModel:
    """Return the model in an archive that was unpacked from ``path``. Raises `BundleError`."""
    manifest = _manifest(unpacked, path)
    model = manifest.model
    if not manifest.runtime.lower().startswith("python"):
        raise BundleError(f"{path}: its runtime is {shown(manifest.runtime)}, and not Python.")
    own, file = _handler(model.handler, unpacked, path)
    for member in ("serializedFile", "modelFile", "requirementsFile", "configFile", "sourceVocab"):
        name = getattr(model, member)
        if name and name not in unpacked.files:
            raise BundleError(
                f"{path}: its manifest names {shown(name)} ({member}), which it doesn't have."
            )
    names = _names(unpacked, path)
    classes, notes = _classes(names, unpacked)
    return TorchServeModel(
        model.modelName,
        model.modelVersion,
        own,
        file,
        model.serializedFile,
        model.modelFile,
        model.sourceVocab,
        _requirements(unpacked, model.requirementsFile, path),
        names,
        classes,
        tuple(notes),
    )


def _manifest(unpacked: Unpacked, path: Path) -> _Manifest:
    if not unpacked.metadata:
        raise BundleError(f"{path} has no {METADATA}, and so is no archive of TorchServe.")
    try:
        return read_as(_Manifest, orjson.loads(unpacked.metadata))
    except (orjson.JSONDecodeError, SchemaError) as error:
        raise BundleError(f"{path}: {METADATA}: {error}") from error


def _handler(written: str, unpacked: Unpacked, path: Path) -> tuple[str, str]:
    """Return TorchServe's own handler that an archive names, or the file of its own."""
    module = written.partition(":")[0].rpartition("/")[2].removesuffix(".py")
    file = f"{module}.py"
    if file in unpacked.files:
        return "", file
    if module in _OWN_HANDLERS:
        return module, ""
    raise BundleError(
        f"{path}: its manifest names the handler {shown(written)}, which isn't there."
    )


def _requirements(unpacked: Unpacked, name: str, path: Path) -> tuple[str, ...]:
    """Return the packages that an archive needs, without comments and options of pip."""
    name = name or "requirements.txt"
    if name not in unpacked.files:
        return ()
    lines = (line.partition(" #")[0].strip() for line in _text(unpacked, name, path).splitlines())
    found = [line for line in lines if line and not line.startswith(("#", "-"))]
    return tuple(line[:500] for line in found[:1000])


def _names(unpacked: Unpacked, path: Path) -> tuple[str, ...]:
    """Return the names of the classes in their order; none where the archive doesn't say them."""
    if CLASSES_FILE not in unpacked.files:
        return ()
    try:
        mapping = label_mapping(orjson.loads(_text(unpacked, CLASSES_FILE, path)))
        return tuple(mapping[str(index)] for index in range(len(mapping)))
    except (orjson.JSONDecodeError, ValueError, KeyError):
        return ()


def _classes(names: tuple[str, ...], unpacked: Unpacked) -> tuple[tuple[str, ...], list[str]]:
    """Return the classes of an archive with a handler of its own, and why there are none."""
    if CLASSES_FILE not in unpacked.files:
        return (), []
    if not names:
        return (), [f"{CLASSES_FILE} doesn't name classes from 0 on; the handler alone reads it."]
    if len(set(names)) != len(names) or not all(1 <= len(name) <= LONGEST_NAME for name in names):
        return (), [f"The names in {CLASSES_FILE} aren't unique; the handler alone reads it."]
    return names, [f"The classes are {listed(names)}."]


def _text(unpacked: Unpacked, name: str, path: Path) -> str:
    file = unpacked.directory / name
    if file.stat().st_size > _LARGEST_TEXT:
        raise BundleError(f"{path}: {name} has more than {_LARGEST_TEXT >> 20} MiB.")
    try:
        return decode(file.read_bytes())
    except NotUtf8 as error:
        raise BundleError(f"{path}: {name} {error}") from None
