"""The features file: what a user says of a model that is packed, in TOML.

::

    classes = ["stays", "leaves"]
    description = "Who is about to leave?"  # optional, as is everything below but the names

    [training]             # figures to show beside the model
    roc_auc = 0.93

    [[features]]           # one table a feature, in the order of the model's columns
    name = "age"
    description = "Age of the customer."
    unit = "years"
    minimum = 18           # the range seen in training; from the samples where it isn't given
    maximum = 90
    example = 44           # the samples' median where it isn't given

    [[features]]
    name = "spend"
    nullable = true        # the service takes null here...
    median = 12.5          # ...and the model gets this; without it, NaN, which it must understand

It knows nothing of the model itself; that both fit together is `file`'s concern.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from ..model.errors import BundleError
from ..model.features import FLOAT32_OVERFLOW, Feature
from ..model.suggestions import did_you_mean
from ..model.text import NotUtf8, decode

_KEYS = ("name", "description", "classes", "training", "features")
_FEATURE_KEYS = (
    *("name", "description", "unit", "minimum", "maximum", "nullable", "example", "median"),
)
_LARGEST_FILE = 16_000_000


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What people say of a model: its features in the order of its columns, and its classes.

    ``medians`` (feature name -> value) are put in place of null, in front of the model. ``name``
    is empty where the directory of the bundle alone gives it. ``training`` holds plain values.
    """

    features: tuple[Feature, ...]
    classes: tuple[str, ...]
    name: str = ""
    description: str = ""
    medians: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


def read_description(path: Path) -> ModelDescription:
    """Read a features file. Raises `BundleError`, which names the file, the key and the fix."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    if len(content) > _LARGEST_FILE:
        raise BundleError(f"{path} is larger than any features file; is it the right one?")
    try:
        return parse_description(tomllib.loads(decode(content)))
    except NotUtf8 as error:
        raise BundleError(f"{path} {error}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BundleError(f"{path} is not TOML: {error}.") from error
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None


def parse_description(document: Mapping[str, Any]) -> ModelDescription:
    """Check the values of a features file. Raises `BundleError`, which names the key."""
    _refuse_unknown(document, _KEYS, "")
    tables = document.get("features")
    if not isinstance(tables, list) or not tables:
        raise BundleError(
            "features is missing: write a [[features]] table for each column of the model, in "
            "their order."
        )
    features: list[Feature] = []
    medians: dict[str, float] = {}
    for number, table in enumerate(tables, 1):
        feature, median = _feature(table, f"feature {number}")
        features.append(feature)
        if median is not None:
            medians[feature.name] = median
    _refuse_repeats("features", [feature.name for feature in features])
    return ModelDescription(
        features=tuple(features),
        classes=_classes(document.get("classes")),
        name=_text(document, "name", ""),
        description=_text(document, "description", ""),
        medians=medians,
        training=_training(document.get("training", {})),
    )


def _classes(value: object) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or len(value) < 2
        or not all(isinstance(name, str) and name for name in value)
    ):
        raise BundleError(
            "classes must be an array of two or more names, in the order of the model's outputs: "
            'classes = ["stays", "leaves"].'
        )
    _refuse_repeats("classes", value)
    return tuple(value)


def _training(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BundleError("training must be a table: [training], then one figure a line.")
    return {key: _plain(item, f"training.{key}") for key, item in value.items()}


def _plain(value: Any, place: str) -> Any:
    """Give a TOML value as JSON has it: dates as text. Raises `BundleError` for inf and nan."""
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


def _feature(table: object, place: str) -> tuple[Feature, float | None]:
    if not isinstance(table, dict):
        raise BundleError("features must be tables: [[features]], then name = ... below it.")
    name = table.get("name")
    if not isinstance(name, str) or not name:
        raise BundleError(f'{place}: name is missing or empty; write name = "...".')
    if name != name.strip():
        raise BundleError(f"{place}: name {name!r} begins or ends with a space.")
    place = f"{place} ({name!r})"
    _refuse_unknown(table, _FEATURE_KEYS, f"{place}: ")
    nullable = table.get("nullable", False)
    if not isinstance(nullable, bool):
        raise BundleError(f"{place}: nullable must be true or false.")
    feature = Feature(
        name=name,
        description=_text(table, "description", f"{place}: "),
        unit=_text(table, "unit", f"{place}: "),
        minimum=_number(table, "minimum", place),
        maximum=_number(table, "maximum", place),
        nullable=nullable,
        example=_number(table, "example", place),
    )
    low, high = feature.minimum, feature.maximum
    if low is not None and high is not None and low > high:
        raise BundleError(f"{place}: minimum {low:g} is above maximum {high:g}.")
    median = _number(table, "median", place)
    if median is not None and not nullable:
        raise BundleError(
            f"{place}: median stands in for null, which needs nullable = true beside it."
        )
    return feature, median


def _text(table: Mapping[str, Any], key: str, place: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise BundleError(f"{place}{key} must be text in quotes.")
    return value


def _number(table: Mapping[str, Any], key: str, place: str) -> float | None:
    value = table.get(key)
    if value is None:
        return None
    # Exact types: true is an int to isinstance. Written so that NaN fails too.
    if type(value) not in (int, float) or not abs(value) < FLOAT32_OVERFLOW:
        raise BundleError(f"{place}: {key} must be a number that is finite as a 32-bit float.")
    return float(value)


def _refuse_unknown(table: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    for key in table:
        if key not in known:
            hint = did_you_mean(key, known) or f"; the keys are {', '.join(known)}."
            raise BundleError(f"{place}{key!r} is not a key here{hint}")


def _refuse_repeats(place: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BundleError(f"{place} must differ from each other; {name!r} is there twice.")
        seen.add(name)
