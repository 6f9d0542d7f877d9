"""The forms that a manifest has in its file.

Format 1 describes a classifier of named numbers and has its golden samples inside. Format 2 states
the tensors of any network, and what they mean. In memory both are a `Manifest`; what is written is
format 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from ..documents.schema import read_as
from .code.declaration import HandlerSpec
from .errors import BundleError, shown
from .features import DescribedColumn, Feature, Name, Number
from .file_name import FileName
from .golden import Golden
from .manifest import (
    FileRecord,
    Manifest,
    Target,
    TaskName,
    Tolerance,
    Version,
)
from .manifest_checks import check_meaning
from .signature import MAX_TENSORS, OutputSpec, TensorSpec
from .steps.declaration import Step

FORMATS = (1, 2)


class _Format1(Struct):
    """Format 1, but for its golden samples. Members that are not known are ignored."""

    name: Name
    version: Version
    features: Annotated[tuple[_Format1Feature, ...], Meta(min_length=1)]
    classes: Annotated[tuple[Name, ...], Meta(min_length=2)]
    description: str = ""
    created_at: str | None = None
    preprocessing: tuple[Mapping[str, Any], ...] = ()
    training: Mapping[str, Any] = {}
    files: Mapping[FileName, FileRecord] = {}


class _Format1Feature(DescribedColumn, frozen=True):
    """A column of the one matrix. Members that are not known are ignored."""

    example: Number | None = None


_Tensors = Meta(max_length=MAX_TENSORS, description=f"an array of at most {MAX_TENSORS} tensors")


_Steps = Meta(max_length=2, description="an array of an image step, a text step, or both")
LARGEST_TOP = 1000
"""The most classes that an answer has as the most probable ones."""


class _Feature(Feature, frozen=True, forbid_unknown_fields=True):
    """A column of an input, with no member but those that are known."""


class _Format2(Struct, kw_only=True, forbid_unknown_fields=True):
    """Format 2, in the order in which it is written."""

    format: Literal[2]
    name: Name
    version: Version
    description: str = ""
    created_at: str | None = None
    task: TaskName
    inputs: Annotated[tuple[TensorSpec, ...], _Tensors]
    outputs: Annotated[tuple[OutputSpec, ...], _Tensors]
    features: tuple[_Feature, ...] = ()
    steps: Annotated[tuple[Step, ...], _Steps] = ()
    classes: tuple[Name, ...] = ()
    labels: tuple[Name, ...] = ()
    targets: tuple[Target, ...] = ()
    top: Annotated[int, Meta(ge=0, le=LARGEST_TOP)] = 0
    batch: bool = False
    tolerances: Mapping[str, Tolerance] = {}
    preprocessing: tuple[Mapping[str, Any], ...] = ()
    training: Mapping[str, Any] = {}
    handler: HandlerSpec | None = None
    golden: FileName | Literal[""] = ""
    reference: FileName | Literal[""] = ""
    files: Mapping[FileName, FileRecord]


_Rows = Annotated[list[list[Number | None]], Meta(min_length=1)]


class _GoldenRows(Struct):
    """`Golden` as format 1 has it."""

    samples: _Rows
    probabilities: _Rows


def parse_manifest(document: Any) -> Manifest:
    """Return the manifest in the JSON of its file. Raises `BundleError` and `SchemaError`."""
    root = _without_nulls(read_as(dict[str, Any], document))
    written = root.get("format")
    if type(written) is not int or written not in FORMATS:
        raise BundleError(
            f"format must be {' or '.join(map(str, FORMATS))} (it is {shown(written)}); pack the "
            "bundle again."
        )
    manifest = _parse_format_2(root) if written == 2 else _parse_format_1(root)
    check_meaning(manifest)
    return manifest


def manifest_document(manifest: Manifest) -> dict[str, Any]:
    """Return ``manifest`` as the JSON object in its file. What is not said is left out."""
    apart = {"format": 2, "golden": manifest.golden_file}
    names = (field.name for field in msgspec.structs.fields(_Format2))
    members = {name: apart[name] if name in apart else getattr(manifest, name) for name in names}
    document: dict[str, Any] = msgspec.to_builtins(members)
    document["features"] = [_without_defaults(feature) for feature in document["features"]]
    optional = (
        *("features", "steps", "classes", "labels", "targets"),
        *("top", "preprocessing", "handler", "golden", "reference"),
    )
    return {name: value for name, value in document.items() if value or name not in optional}


def _without_defaults(feature: dict[str, Any]) -> dict[str, Any]:
    """Return a feature without the members that most have no need of."""
    return {
        name: value
        for name, value in feature.items()
        if name not in _RARE_MEMBERS or value not in (_RARE_MEMBERS[name], [])
    }


_RARE_MEMBERS = {
    field.name: field.default
    for field in msgspec.structs.fields(Feature)
    if field.name in ("categories", "unknown", "null_as", "column")
}
"""The members of a feature that most have no need of, and their defaults: read once, since a model
may have very many features."""


def _parse_format_1(root: dict[str, Any]) -> Manifest:
    read = read_as(_Format1, root)
    rows = read_as(_GoldenRows, root.get("golden"), ("golden",))
    golden = _golden(rows, len(read.features), len(read.classes))
    members = msgspec.structs.asdict(read)
    features = [Feature(**msgspec.structs.asdict(f)) for f in members.pop("features")]
    return Manifest.of_classifier(features=features, golden=golden, **members)


def _parse_format_2(root: dict[str, Any]) -> Manifest:
    members = msgspec.structs.asdict(read_as(_Format2, root))
    members["features"] = tuple(
        Feature(**msgspec.structs.asdict(feature)) for feature in members["features"]
    )
    golden_file = members.pop("golden")
    del members["format"]
    return Manifest(**members, golden_file=golden_file)


def _without_nulls(root: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest without null members, in itself, its features and its steps.

    Null means the same as a missing member: people and other programs write either.
    """

    def given(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: item for key, item in value.items() if item is not None}

    root = given(root)
    listed = {name: root.get(name) for name in ("features", "steps")}
    return root | {
        name: [*map(given, items)] for name, items in listed.items() if isinstance(items, list)
    }


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
