"""The features file: the user's description of a model to pack, in TOML.

::

    classes = ["stays", "leaves"]           # labels = [...] where they don't exclude each other
    description = "Who is about to leave?"  # optional, as is everything below but the names

    [[targets]]            # what a regression predicts, in place of classes
    name = "price"
    unit = "euros"

    [training]             # metrics to show beside the model
    roc_auc = 0.93

    [[features]]           # one table per feature, in the order of the model's columns
    name = "age"
    description = "Age of the customer."
    unit = "years"
    minimum = 18           # the range seen in training; by default, that of the samples
    maximum = 90
    example = 44           # by default, the median of the samples

    [[features]]
    name = "spend"
    nullable = true        # the service takes null here...
    median = 12.5          # ...and replaced by this; without it, the model receives NaN

    [[features]]
    name = "plan"
    kind = "category"      # number, integer, boolean or category; by default, as the model's input
    categories = ["basic", "plus"]  # sent as these; the model gets strings, or positions
    unknown = "refuse"     # or "pass": the model knows what to do with other strings
    tensor = "categories"  # the input that it is a column of, where a model has several
    column = 0             # by default, in the order of the tables

It knows nothing of the model itself; `conversion` checks that both fit together.

A model of images or texts has, in place of features, the steps that make its inputs; their keys are
those of the manifest::

    classes = ["cat", "dog", "horse"]
    top = 2                # the most probable classes that an answer lists

    [[steps]]
    kind = "image"
    input = "pixels"       # the input of the model that it fills
    resize = {shorter = 256}
    crop = {width = 224, height = 224}
    scale = 0.00392156862745098
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]

    [[steps]]
    kind = "text"
    tokenizer = "tokenizer.json"  # a path, relative to this file; it is copied into the bundle
    max_length = 128
    input_ids = "input_ids"
    attention_mask = "attention_mask"
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import fields

from ..documents.schema import SchemaError, place, read_as
from ..documents.suggestions import did_you_mean
from ..documents.toml import NotToml, read_toml
from ..model.errors import BundleError
from ..model.features import Feature, Name, Number
from ..model.manifest import Target
from ..model.manifest_formats import LARGEST_TOP
from ..model.steps.declaration import Step
from .step_tables import read_steps

_MAX_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A user's description of a model: its features in the order of its columns, or the steps
    that make its inputs, and what it answers.

    ``files`` are those that the steps read, by their names in the bundle. ``top`` is the number of
    most probable classes in an answer. ``medians`` (feature name -> value) replace null, in front
    of the model. ``stated`` has, for each feature, the keys that its table has. ``name`` is empty
    if only the bundle's directory names the model. ``training`` holds plain values.
    """

    features: tuple[Feature, ...] = ()
    classes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    stated: tuple[frozenset[str], ...] = ()
    name: str = ""
    description: str = ""
    medians: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    top: int = 0

    def stated_of_each(self) -> tuple[frozenset[str], ...]:
        """Return, for each feature, what its owner said of it: what isn't as by default, if it was
        not read from a file.
        """
        if self.stated:
            return self.stated
        defaults = [(each.name, each.default) for each in fields(Feature)]
        return tuple(
            frozenset(name for name, default in defaults if getattr(feature, name) != default)
            for feature in self.features
        )


def read_description(path: Path) -> ModelDescription:
    """Read a features file. Raises `BundleError`, which names the file, the key and the fix."""
    try:
        return parse_description(read_toml(path, _MAX_BYTES), path.parent)
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    except NotToml as error:
        raise BundleError(f"{path} {error}") from error
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None


_Classes = Annotated[
    list[Name],
    Meta(
        min_length=2,
        description="an array of two or more names, in the order of the model's outputs: "
        'classes = ["stays", "leaves"]',
    ),
]
_Labels = Annotated[
    list[Name],
    Meta(description='an array of names, in the order of the model\'s outputs: labels = ["spam"]'),
]
_Targets = Annotated[
    list[Target], Meta(description="tables: [[targets]], then name = ... and unit = ... below it")
]
_Training = Annotated[
    dict[str, Any], Meta(description="a table: [training], then one metric per line")
]


class _FeatureTable(Feature, frozen=True, forbid_unknown_fields=True):
    """A table of [[features]]."""

    name: Annotated[str, Meta(min_length=1, pattern=r"\A(?!\s)(?s:.*)(?<!\s)\Z")]
    median: Number | None = None

    def feature(self) -> Feature:
        """Return the feature, or raise `BundleError`."""
        if not self.has_range:
            raise BundleError(f"minimum {self.minimum:g} is above maximum {self.maximum:g}.")
        if self.median is not None and not self.nullable:
            raise BundleError("median replaces null, so it requires nullable = true.")
        if self.median is not None and self.kind in ("boolean", "category"):
            raise BundleError(f"median is for numbers, and the kind is {self.kind!r}.")
        return Feature(*(getattr(self, name) for name in Feature.__struct_fields__))


class _Document(Struct, forbid_unknown_fields=True):
    features: Annotated[list[_FeatureTable], Meta(min_length=1)] | None = None
    steps: list[Any] | None = None
    classes: _Classes | None = None
    labels: _Labels = []
    targets: _Targets = []
    name: str = ""
    description: str = ""
    training: _Training = {}
    top: Annotated[int, Meta(ge=0, le=LARGEST_TOP)] = 0


def parse_description(document: Mapping[str, Any], directory: Path = Path()) -> ModelDescription:
    """Parse the values of a features file, in which paths are relative to ``directory``.

    Raises `BundleError`, which names the key.
    """
    try:
        read = read_as(_Document, document)
    except SchemaError as error:
        raise BundleError(_fault(error, document)) from None
    steps, files = read_steps(read.steps or [], directory)
    _check_kind(read)
    tables = read.features or []
    features = []
    for index, table in enumerate(tables):
        try:
            features.append(table.feature())
        except BundleError as error:
            raise BundleError(f"{_feature_place(index, document)}{error}") from None
    _refuse_repeats("features", [feature.name for feature in features])
    classes = read.classes or []
    _refuse_repeats("classes", classes)
    _refuse_repeats("labels", read.labels)
    _refuse_repeats("targets", [target.name for target in read.targets])
    return ModelDescription(
        features=tuple(features),
        classes=tuple(classes),
        labels=tuple(read.labels),
        targets=tuple(read.targets),
        stated=tuple(frozenset(table) for table in document.get("features", ())),
        name=read.name,
        description=read.description,
        medians={table.name: table.median for table in tables if table.median is not None},
        training=_plain(read.training, "training"),
        steps=steps,
        files=files,
        top=read.top,
    )


def _check_kind(read: _Document) -> None:
    """Raise `BundleError` unless there are either features or steps."""
    if read.features and read.steps:
        raise BundleError(
            "features and steps exclude each other: a model takes columns by name, or what the "
            "steps make of an image or a text."
        )
    if not read.features and not read.steps:
        raise BundleError(_NOTHING_TAKEN)


_NOTHING_TAKEN = (
    "features is missing: write a [[features]] table for each column of the model, in their order "
    "(or [[steps]], for a model of images or texts)."
)


def _fault(error: SchemaError, document: Mapping[str, Any]) -> str:
    """Return a sentence on the fault in ``document``, in TOML's terms."""
    where, path = "", error.path
    match path:
        case ["features"]:
            return _NOTHING_TAKEN
        case ["steps"] | ["features", _]:
            called, first = ("steps", "kind") if path[0] == "steps" else ("features", "name")
            return f"{called} must be tables: [[{called}]], then {first} = ... below it."
        case ["features", int(index), "name"]:
            name = document["features"][index].get("name")
            if isinstance(name, str) and name:
                return f"feature {index + 1}: name {name!r} begins or ends with a space."
            return f'feature {index + 1}: name is missing or empty; write name = "...".'
        case ["features", int(index), *rest]:
            where, path = _feature_place(index, document), tuple(rest)
    if error.known:
        hint = did_you_mean(str(path[-1]), error.known)
        keys = ", ".join(error.known)
        return f"{where}{path[-1]!r} is not a key here{hint or f'; the keys are {keys}.'}"
    return f"{where}{place(path)} must be {error.wanted}."


def _feature_place(index: int, document: Mapping[str, Any]) -> str:
    name = document["features"][index].get("name")
    return f"feature {index + 1} ({name!r}): " if name else f"feature {index + 1}: "


def _plain(value: Any, place: str) -> Any:
    """Return a TOML value as JSON has it: dates as text. Raises `BundleError` for inf and nan."""
    if isinstance(value, dict):
        return {key: _plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise BundleError(f"{place} must be a finite number.")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise BundleError(f"{place} is an integer beyond 64 bits.")
    return value


def _refuse_repeats(place: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BundleError(f"{place} must be unique; {name!r} appears twice.")
        seen.add(name)
