"""The manifest: a bundle's description of itself, read from and written to ``manifest.json``.

It holds facts and checks their form; `bundle` checks the files against it.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

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

FORMAT = 1
"""The format of ``manifest.json`` that this code writes, and the only one it reads."""

FILE_NAME = "manifest.json"
LARGEST_FILE = 16 << 20
"""The largest manifest, in bytes; ``/model/info`` repeats most of it."""
LONGEST_NAME = 256
"""The longest name of a feature or class: responses, logs and metrics repeat it."""

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


class Golden(Struct, frozen=True):
    """Inputs with the model's outputs for them when it was packed.

    ``samples`` is float32 ``(n, features)`` with NaN for null; ``probabilities`` is float32
    ``(n, classes)``.
    """

    samples: NDArray[np.float32]
    probabilities: NDArray[np.float32]


class Manifest(Struct, frozen=True):
    """Everything that a bundle says about one version of a model, as in its file.

    ``preprocessing`` describes the steps inside the network for people; ``training`` has the
    training metrics; ``golden`` is None only for a bare checkpoint.
    """

    name: Name
    version: Version
    features: Annotated[tuple[Feature, ...], Meta(min_length=1)]
    classes: Annotated[tuple[Name, ...], Meta(min_length=2)]
    description: str = ""
    created_at: str | None = None
    preprocessing: tuple[Mapping[str, Any], ...] = ()
    training: Mapping[str, Any] = {}
    golden: Golden | None = None
    files: Mapping[_FileName, FileRecord] = {}


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
    return {"format": FORMAT, **msgspec.to_builtins(manifest, enc_hook=_matrix_document)}


def _matrix_document(matrix: NDArray[np.float32]) -> list[list[float | None]]:
    return [[None if math.isnan(value) else value for value in row] for row in matrix.tolist()]


def _parse(document: Any) -> Manifest:
    root = _without_nulls(read_as(dict[str, Any], document))
    written = root.get("format")
    if type(written) is not int or written != FORMAT:
        raise BundleError(
            f"format must be {FORMAT} (it is {shown(written)}); pack the bundle again."
        )
    manifest = read_as(Manifest, {**root, "golden": None})
    check_names("features", [feature.name for feature in manifest.features])
    check_names("classes", manifest.classes)
    for index, feature in enumerate(manifest.features):
        if not feature.has_range:
            raise BundleError(f"features[{index}].minimum must be at most the maximum.")
    rows = read_as(_GoldenRows, root.get("golden"), ("golden",))
    golden = _golden(rows, len(manifest.features), len(manifest.classes))
    return msgspec.structs.replace(manifest, golden=golden)


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
    return Golden(samples, probabilities)


def _matrix(rows: list[list[float | None]], width: int, place: str) -> NDArray[np.float32]:
    for index, row in enumerate(rows):
        if len(row) != width:
            raise BundleError(f"{place}[{index}] must be an array of {width}.")
    return np.array(rows, dtype=np.float64).astype(np.float32)  # None becomes NaN


def check_names(place: str, names: Sequence[str]) -> None:
    """Raise `BundleError` for names of features or classes that are too long or not unique."""
    for index, name in enumerate(names):
        if len(name) > LONGEST_NAME:
            raise BundleError(
                f"{place}[{index}] is a name of {len(name):,} characters, which exceeds the limit "
                f"of {LONGEST_NAME}: responses repeat it."
            )
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise BundleError(f"{place} must be unique; repeated: {listed(repeated)}.")
