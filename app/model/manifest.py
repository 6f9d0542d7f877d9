"""The manifest: a bundle's description of itself, read from and written to ``manifest.json``.

It holds facts and checks their form; `bundle` checks the files against it.
Format 1 is that of classifiers of named numbers; format 2 states the tensors of any network.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import orjson
from msgspec import Meta, Struct
from numpy.typing import NDArray

from ..documents.schema import SchemaError, read_as
from ..documents.text import NotUtf8, decode
from .errors import BundleError, listed, shown
from .features import Feature, Name, Number
from .file_kind import foreign_kind
from .golden import Golden
from .signature import (
    MAX_TENSORS,
    OutputSpec,
    Signature,
    TensorSpec,
    classifier_graph,
)

FORMATS = (1, 2)
"""The formats of ``manifest.json`` that are read."""
Task = Literal["classification", "tensors"]
"""What a model is for, and so what its outputs mean; those of ``tensors`` are the caller's."""

FILE_NAME = "manifest.json"
LARGEST_FILE = 16 << 20
"""The largest manifest, in bytes; ``/model/info`` repeats most of it."""
LONGEST_NAME = 256
"""The longest name of a feature or class: responses, logs and metrics repeat it."""

_RESERVED = ("steps", "handler")
"""Members of format 2 that will name code of the owner."""

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
"""The form of a version: it appears in responses, logs, metrics and names of directories."""
VERSION_FORM = "at most 64 letters, digits and . _ + -, the first of them a letter or digit"
Version = Annotated[
    str, Meta(pattern=rf"\A{VERSION.pattern}\Z", description=f"a string of {VERSION_FORM}")
]

_FileName = Annotated[
    # One with a slash or dots could lead out of the bundle.
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9_][A-Za-z0-9._-]*\Z",
        description="named like a plain file of the bundle's directory",
    ),
]
_Sha256 = Annotated[
    str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="64 lower-case hexadecimal digits")
]
_Bytes = Annotated[int, Meta(ge=0, description="a number of bytes")]


class FileRecord(Struct, frozen=True):
    """A file of the bundle: its SHA-256 in lower-case hexadecimal and its size in bytes."""

    sha256: _Sha256
    size: _Bytes


class Tolerance(Struct, frozen=True, forbid_unknown_fields=True):
    """How far an output may lie from the golden one: ``absolute`` + ``relative`` * its size."""

    relative: Annotated[float, Meta(ge=0, le=1)] = 0.0
    absolute: Annotated[float, Meta(ge=0)] = 0.0


class Manifest(Struct, frozen=True):
    """Everything that a bundle says about one version of a model.

    ``preprocessing`` describes the steps inside the network for people; ``training`` has the
    training metrics. ``golden`` is None for a bare checkpoint, and where ``golden_file``
    names the file of the bundle that has it. ``inputs`` and ``outputs`` are those of the network;
    they follow from ``features`` and ``classes`` where there are such.
    """

    name: str
    version: str
    features: tuple[Feature, ...] = ()
    classes: tuple[str, ...] = ()
    description: str = ""
    created_at: str | None = None
    preprocessing: tuple[Mapping[str, Any], ...] = ()
    training: Mapping[str, Any] = {}
    golden: Golden | None = None
    files: Mapping[str, FileRecord] = {}
    task: Task = "classification"
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    tolerances: Mapping[str, Tolerance] = {}
    golden_file: str = ""

    @property
    def signature(self) -> Signature:
        """The tensors of the network."""
        if self.task == "classification":
            return classifier_graph(len(self.features), len(self.classes))
        return Signature(self.inputs, self.outputs)


class _ClassifierDocument(Struct):
    """Format 1, but for its golden samples. Members that are not known are ignored."""

    name: Name
    version: Version
    features: Annotated[tuple[Feature, ...], Meta(min_length=1)]
    classes: Annotated[tuple[Name, ...], Meta(min_length=2)]
    description: str = ""
    created_at: str | None = None
    preprocessing: tuple[Mapping[str, Any], ...] = ()
    training: Mapping[str, Any] = {}
    files: Mapping[_FileName, FileRecord] = {}


_Tensors = Meta(max_length=MAX_TENSORS, description=f"an array of at most {MAX_TENSORS} tensors")
_SomeTensors = Meta(
    min_length=1,
    max_length=MAX_TENSORS,
    description=f"an array of 1 to {MAX_TENSORS} tensors, each with name, datatype and shape",
)


class _TensorsDocument(Struct, forbid_unknown_fields=True):
    """Format 2 of the task ``tensors``."""

    format: Literal[2]
    name: Name
    version: Version
    task: Literal["tensors"]
    inputs: Annotated[tuple[TensorSpec, ...], _Tensors]
    outputs: Annotated[tuple[OutputSpec, ...], _SomeTensors]
    golden: _FileName
    files: Mapping[_FileName, FileRecord]
    tolerances: Mapping[str, Tolerance] = {}
    description: str = ""
    created_at: str | None = None
    training: Mapping[str, Any] = {}


class _Named(Struct):
    """The part of a manifest that names the model."""

    name: Name


_Rows = Annotated[list[list[Number | None]], Meta(min_length=1)]


class _GoldenRows(Struct):
    """`Golden` as JSON has it."""

    samples: _Rows
    probabilities: _Rows


def read_manifest(path: Path) -> Manifest:
    """Read ``manifest.json``. Raises `BundleError`, which names the member that is wrong."""
    document = _read_document(path)
    try:
        return _parse(document)
    except (BundleError, SchemaError) as error:
        raise BundleError(f"{path}: {error}") from None


def read_name(path: Path) -> str:
    """Read only the model's name from ``manifest.json``. Raises `BundleError`."""
    document = _read_document(path)
    try:
        return read_as(_Named, document).name
    except SchemaError as error:
        raise BundleError(f"{path}: {error}") from None


def _read_document(path: Path) -> Any:
    if not path.is_file():
        raise BundleError(f"{path} is missing, or not a regular file.")
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise BundleError(
                f"{path} has {size:,} bytes, which exceeds the limit of {LARGEST_FILE:,}: record "
                "fewer golden samples, or shorter descriptions."
            )
        # orjson is strict where json is not: no NaN, no lone surrogate, no integer beyond 64 bits;
        # a response that repeats them couldn't be encoded.
        return orjson.loads(decode(path.read_bytes()))
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    except NotUtf8 as error:
        raise BundleError(f"{path} {error}") from None
    except orjson.JSONDecodeError as error:
        kind = foreign_kind(path)
        if kind:
            raise BundleError(f"{path} {kind}.") from error
        raise BundleError(f"{path} is not JSON: {error}") from error


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write ``manifest`` to ``path`` as JSON that people can read and `read_manifest` accepts."""
    document = manifest_document(manifest)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")


def manifest_document(manifest: Manifest) -> dict[str, Any]:
    """Return ``manifest`` as the JSON object in its file."""
    if manifest.task == "tensors":
        members = (field.name for field in msgspec.structs.fields(_TensorsDocument))
        found = {name: getattr(manifest, name) for name in members if hasattr(manifest, name)}
        built = msgspec.to_builtins(found | {"golden": manifest.golden_file})
        return {"format": 2, **built}
    members = (field.name for field in msgspec.structs.fields(_ClassifierDocument))
    built = msgspec.to_builtins({name: getattr(manifest, name) for name in members})
    golden = manifest.golden and {
        "samples": _matrix_document(manifest.golden.samples),
        "probabilities": _matrix_document(manifest.golden.probabilities),
    }
    files = built.pop("files")
    return {"format": 1, **built, "golden": golden, "files": files}


def _matrix_document(matrix: NDArray[np.float32]) -> list[list[float | None]]:
    return [[None if math.isnan(value) else value for value in row] for row in matrix.tolist()]


def _parse(document: Any) -> Manifest:
    root = _without_nulls(read_as(dict[str, Any], document))
    written = root.get("format")
    if type(written) is not int or written not in FORMATS:
        raise BundleError(
            f"format must be {' or '.join(map(str, FORMATS))} (it is {shown(written)}); pack the "
            "bundle again."
        )
    return _parse_tensors(root) if written == 2 else _parse_classifier(root)


def _parse_classifier(root: dict[str, Any]) -> Manifest:
    read = read_as(_ClassifierDocument, root)
    check_names("features", [feature.name for feature in read.features])
    check_names("classes", read.classes)
    for index, feature in enumerate(read.features):
        if not feature.has_range:
            raise BundleError(f"features[{index}].minimum must be at most the maximum.")
    rows = read_as(_GoldenRows, root.get("golden"), ("golden",))
    golden = _golden(rows, len(read.features), len(read.classes))
    return Manifest(**msgspec.structs.asdict(read), golden=golden)


def _parse_tensors(root: dict[str, Any]) -> Manifest:
    for member in _RESERVED:
        if member in root:
            raise BundleError(
                f"{member} is reserved for a later version, and not served by this one."
            )
    read = read_as(_TensorsDocument, root)
    check_names("inputs", [spec.name for spec in read.inputs])
    check_names("outputs", [spec.name for spec in read.outputs])
    outputs = {spec.name: spec for spec in read.outputs}
    unknown = next((name for name in read.tolerances if name not in outputs), None)
    if unknown is not None:
        raise BundleError(f"tolerances has {shown(unknown)}, which is not one of the outputs.")
    misplaced = next((spec for spec in read.outputs if spec.role == "probabilities"), None)
    if misplaced is not None:
        raise BundleError(
            f"outputs: the role of {shown(misplaced.name)} must be 'tensor' or 'state' where the "
            "task is 'tensors'."
        )
    if read.golden not in read.files:
        raise BundleError(f"golden names {shown(read.golden)}, which files doesn't list.")
    members = msgspec.structs.asdict(read)
    golden_file = members.pop("golden")
    del members["format"]
    return Manifest(**members, golden_file=golden_file)


def _without_nulls(root: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest without null members, in itself and in its features.

    Null means the same as a missing member: people and other programs write either.
    """

    def given(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: item for key, item in value.items() if item is not None}

    root = given(root)
    features = root.get("features")
    return root | {"features": [*map(given, features)]} if isinstance(features, list) else root


def _golden(rows: _GoldenRows, features: int, classes: int) -> Golden:
    samples = _matrix(rows.samples, features, "golden.samples")
    probabilities = _matrix(rows.probabilities, classes, "golden.probabilities")
    if len(samples) != len(probabilities):
        raise BundleError(
            f"golden.probabilities must have as many rows as golden.samples ({len(samples)})."
        )
    if np.isnan(probabilities).any():
        raise BundleError("golden.probabilities must be an array of numbers without null.")
    return Golden.of_classifier(samples, probabilities)


def _matrix(rows: list[list[float | None]], width: int, place: str) -> NDArray[np.float32]:
    for index, row in enumerate(rows):
        if len(row) != width:
            raise BundleError(f"{place}[{index}] must be an array of {width}.")
    return np.array(rows, dtype=np.float64).astype(np.float32)  # None becomes NaN


def check_names(place: str, names: Sequence[str]) -> None:
    """Raise `BundleError` for names of features, classes or tensors that are too long, or not
    unique.
    """
    for index, name in enumerate(names):
        if len(name) > LONGEST_NAME:
            raise BundleError(
                f"{place}[{index}] is a name of {len(name):,} characters, which exceeds the limit "
                f"of {LONGEST_NAME}: responses repeat it."
            )
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise BundleError(f"{place} must be unique; repeated: {listed(repeated)}.")
