"""The manifest: what a bundle says of itself, read from and written to ``manifest.json``.

It holds facts and checks their form; whether the files are what it says is `bundle`'s concern.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from .errors import BundleError, listed, shown
from .features import Feature
from .file_kind import foreign_kind
from .text import NotUtf8, decode

FORMAT = 1
"""The format of ``manifest.json`` that this code writes, and the only one that it reads."""

FILE_NAME = "manifest.json"
LARGEST_FILE = 16 << 20
"""Bytes of a manifest at most; ``/model/info`` repeats most of them."""
LONGEST_NAME = 256
"""Characters of the name of a feature or class at most: answers, logs and metrics repeat it."""

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
"""What a version may be called: it stands in answers, logs, metrics and names of directories."""
VERSION_FORM = "at most 64 letters, digits and . _ + -, and begin with a letter or digit"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of the bundle: its SHA-256 in lower-case hexadecimal and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs with the outputs that the model gave for them when it was packed.

    ``samples`` is float32 ``(n, features)`` with NaN for null; ``probabilities`` is float32
    ``(n, classes)``.
    """

    samples: NDArray[np.float32]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a bundle says of one version of a model.

    ``preprocessing`` describes the steps inside the network for people; ``training`` holds the
    figures of its training; ``golden`` is None only for a bare checkpoint.
    """

    name: str
    version: str
    features: tuple[Feature, ...]
    classes: tuple[str, ...]
    description: str = ""
    created_at: str | None = None
    preprocessing: tuple[Mapping[str, Any], ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    golden: Golden | None = None
    files: Mapping[str, FileRecord] = field(default_factory=dict)


def read_manifest(path: Path) -> Manifest:
    """Read ``manifest.json``. Raises `BundleError`, which names the member that is wrong."""
    document = _read_document(path)
    try:
        return _parse(document)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None


def read_name(path: Path) -> str:
    """Read no more of ``manifest.json`` than what it calls the model. Raises `BundleError`."""
    document = _read_document(path)
    try:
        return document.member("name").string()
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None


def _read_document(path: Path) -> _Reader:
    if not path.is_file():
        raise BundleError(f"{path} is missing, or not a regular file.")
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise BundleError(
                f"{path} has {size:,} bytes, and at most {LARGEST_FILE:,} are read: record fewer "
                "golden samples, and shorter descriptions."
            )
        # orjson is strict where json is not: no NaN, no lone surrogate, no integer beyond 64 bits,
        # none of which an answer that repeats it could hold.
        document = orjson.loads(decode(path.read_bytes()))
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    except NotUtf8 as error:
        raise BundleError(f"{path} {error}") from None
    except orjson.JSONDecodeError as error:
        kind = foreign_kind(path)
        if kind:
            raise BundleError(f"{path} {kind}.") from error
        raise BundleError(f"{path} is not JSON: {error}") from error
    return _Reader(document, "")


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write ``manifest`` to ``path`` as JSON that people can read and `read_manifest` accepts."""
    document = manifest_document(manifest)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")


def manifest_document(manifest: Manifest) -> dict[str, Any]:
    """Give ``manifest`` as the JSON object that stands in its file."""
    golden = manifest.golden
    return {
        "format": FORMAT,
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.description,
        "created_at": manifest.created_at,
        "features": [asdict(feature) for feature in manifest.features],
        "classes": list(manifest.classes),
        "preprocessing": [dict(step) for step in manifest.preprocessing],
        "training": dict(manifest.training),
        "golden": golden
        and {
            "samples": [
                [None if math.isnan(value) else value for value in row]
                for row in golden.samples.tolist()
            ],
            "probabilities": golden.probabilities.tolist(),
        },
        "files": {name: asdict(record) for name, record in sorted(manifest.files.items())},
    }


class _Reader:
    """A JSON value with the place it stands at, so that a wrong one can be named."""

    def __init__(self, value: Any, place: str) -> None:
        self.value = value
        self.place = place

    def fail(self, wanted: str) -> BundleError:
        return BundleError(f"{self.place or 'the document'} must be {wanted}.")

    def member(self, name: str) -> _Reader:
        place = f"{self.place}.{name}" if self.place else name
        return _Reader(self.object().get(name), place)

    def object(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            raise self.fail("an object")
        return self.value

    def items(self, *, least: int = 0) -> list[_Reader]:
        if not isinstance(self.value, list) or len(self.value) < least:
            raise self.fail(f"an array of at least {least}" if least else "an array")
        return [_Reader(value, f"{self.place}[{i}]") for i, value in enumerate(self.value)]

    def string(self, *, default: str | None = None) -> str:
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, str) or (not self.value and default is None):
            raise self.fail("a string that is not empty" if default is None else "a string")
        return self.value

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.fail("true or false")
        return self.value

    def number(self) -> float | None:
        if self.value is None:
            return None
        if type(self.value) not in (int, float) or not math.isfinite(self.value):
            raise self.fail("a finite number or null")
        return float(self.value)


def _parse(root: _Reader) -> Manifest:
    written = root.member("format")
    if type(written.value) is not int or written.value != FORMAT:
        raise written.fail(f"{FORMAT} (it is {shown(written.value)}); pack the bundle again")
    features = tuple(_feature(item) for item in root.member("features").items(least=1))
    classes = tuple(item.string() for item in root.member("classes").items(least=2))
    check_names("features", [feature.name for feature in features])
    check_names("classes", classes)
    created_at = root.member("created_at")
    preprocessing = root.member("preprocessing")
    training = root.member("training")
    return Manifest(
        name=root.member("name").string(),
        version=_version(root.member("version")),
        features=features,
        classes=classes,
        description=root.member("description").string(default=""),
        created_at=None if created_at.value is None else created_at.string(),
        preprocessing=tuple(
            item.object() for item in ([] if preprocessing.value is None else preprocessing.items())
        ),
        training={} if training.value is None else training.object(),
        golden=_golden(root.member("golden"), len(features), len(classes)),
        files=_files(root.member("files")),
    )


def _version(version: _Reader) -> str:
    text = version.string()
    if not VERSION.fullmatch(text):
        raise version.fail(VERSION_FORM)
    return text


def _feature(item: _Reader) -> Feature:
    feature = Feature(
        name=item.member("name").string(),
        description=item.member("description").string(default=""),
        unit=item.member("unit").string(default=""),
        minimum=item.member("minimum").number(),
        maximum=item.member("maximum").number(),
        nullable=item.member("nullable").boolean(),
        example=item.member("example").number(),
    )
    low, high = feature.minimum, feature.maximum
    if low is not None and high is not None and low > high:
        raise item.member("minimum").fail("at most the maximum")
    return feature


def _golden(golden: _Reader, features: int, classes: int) -> Golden:
    samples = golden.member("samples")
    probabilities = golden.member("probabilities")
    inputs = _matrix(samples, features)
    outputs = _matrix(probabilities, classes)
    if len(inputs) != len(outputs):
        raise probabilities.fail(f"as many rows as golden.samples ({len(inputs)})")
    if np.isnan(outputs).any():
        raise probabilities.fail("an array of numbers without null")
    return Golden(inputs, outputs)


def _matrix(rows: _Reader, width: int) -> NDArray[np.float32]:
    values = []
    for row in rows.items(least=1):
        numbers = [item.number() for item in row.items()]
        if len(numbers) != width:
            raise row.fail(f"an array of {width}")
        values.append(numbers)
    with np.errstate(over="ignore"):
        matrix = np.array(values, dtype=np.float64).astype(np.float32)  # None becomes NaN
    if np.isinf(matrix).any():
        raise rows.fail("an array of numbers that are finite as 32-bit floats")
    return matrix


def _files(files: _Reader) -> dict[str, FileRecord]:
    records = {}
    for name in files.object():
        entry = files.member(name)
        # A name with a slash or dots could lead out of the bundle.
        if not _PLAIN_FILE_NAME.fullmatch(name):
            raise entry.fail("named like a plain file of the bundle's directory")
        sha256, size = entry.member("sha256"), entry.member("size")
        if not isinstance(sha256.value, str) or not _SHA256.fullmatch(sha256.value):
            raise sha256.fail("64 lower-case hexadecimal digits")
        if type(size.value) is not int or size.value < 0:
            raise size.fail("a number of bytes")
        records[name] = FileRecord(sha256.value, size.value)
    return records


def check_names(place: str, names: Sequence[str]) -> None:
    """Raise `BundleError` for names of features or classes that are too long, or not unique."""
    for index, name in enumerate(names):
        if len(name) > LONGEST_NAME:
            raise BundleError(
                f"{place}[{index}] is a name of {len(name):,} characters, and at most "
                f"{LONGEST_NAME} are accepted: every answer repeats it."
            )
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise BundleError(f"{place} must differ from each other; repeated: {listed(repeated)}.")
