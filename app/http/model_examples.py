"""The part of the OpenAPI document about a model: the schema of its features, and examples."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from math import isinf, prod
from typing import Any

import numpy as np
import orjson

from ..model.columns import LARGEST_EXACT, overflow
from ..model.errors import (
    InputsRejected,
    InvalidFeatures,
    InvalidSamples,
    NonFiniteOutput,
    TakesNoFeatures,
)
from ..model.features import Feature
from ..model.model import Model
from ..model.signature import DTYPES, Tensors, TensorSpec
from ..model.steps.declaration import IMAGE, TEXT, Sample
from ..protocols.native.predictions import response_bodies
from ..protocols.open_inference.datatypes import ONLY_BINARY
from .prediction_bodies import media_schema

_MAX_SHOWN = 100
"""The most classes, or values of a category, that are listed, or shown in an example."""
_MAX_NAMED = 10
"""The most values of a category that a description names."""
_EMPTY: Mapping[str, Any] = {"BOOL": False, "BYTES": ""}
"""By datatype, the value in an example of a tensor; 0 for numbers."""
_EXAMPLES: Mapping[str, str] = {
    IMAGE: "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEklEQVR42mNkUIAAJhYoII8BAFi4AdDldSkm"
    "AAAAAElFTkSuQmCC",
    TEXT: "An example of a text.",
}
"""By member of a sample, a small image in base64, and a text."""
_MAX_DESCRIBED = 1000
"""The most features that are described one by one: the document is built for each request."""


def features_schema(model: Model | None) -> dict[str, Any]:
    """Return the schema of one sample for ``model``; None if none is loaded."""
    if model is None:
        return {"type": "object", "description": "No model is loaded, so the features are unknown."}
    if model.handler is not None:
        return {"description": "What the handler of the model takes."}
    if model.steps is not None:
        return media_schema(model)
    if not model.takes_features:
        return {"type": "object", "description": str(TakesNoFeatures(model.name))}
    features = model.manifest.features
    if len(features) > _MAX_DESCRIBED:
        return {
            "type": "object",
            "description": f"A value for each of {len(features):,} features, which the model's "
            "info lists.",
            "additionalProperties": {"nullable": True},
        }
    datatypes = {spec.name: spec.datatype for spec in model.manifest.inputs}
    return {
        "type": "object",
        "properties": {
            feature.name: _feature_schema(feature, datatypes[feature.tensor])
            for feature in features
        },
        "required": [feature.name for feature in features],
        "additionalProperties": False,
    }


def _feature_schema(feature: Feature, datatype: str) -> dict[str, Any]:
    seen = (
        f"{feature.minimum:g} to {feature.maximum:g} in training"
        if feature.minimum is not None and feature.maximum is not None
        else ""
    )
    described = [part for part in (feature.description, feature.unit, seen) if part]
    described += _described_categories(feature)
    schema: dict[str, Any] = {
        **_values(feature, datatype),
        "description": "; ".join(described),
        "example": _example(feature),
    }
    if feature.nullable:
        schema["nullable"] = True
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return schema


def _values(feature: Feature, datatype: str) -> dict[str, Any]:
    """Return the schema of the values of a feature, without null."""
    if feature.kind == "boolean":
        return {"type": "boolean"}
    if feature.kind == "category":
        is_closed = feature.unknown == "refuse" and len(feature.categories) <= _MAX_SHOWN
        return {"type": "string", **({"enum": list(feature.categories)} if is_closed else {})}
    if feature.kind == "integer":
        return {"type": "integer", **_bounds_of_integers(datatype)}
    bound = overflow(datatype)
    if isinf(bound):
        return {"type": "number"}
    return {
        "type": "number",
        # What is finite as such a float; the range of the training data is not a bound.
        "minimum": -bound,
        "exclusiveMinimum": True,
        "maximum": bound,
        "exclusiveMaximum": True,
    }


def _bounds_of_integers(datatype: str) -> dict[str, Any]:
    largest = LARGEST_EXACT.get(datatype)
    if largest is not None:
        return {"minimum": -largest, "maximum": largest}
    bounds = np.iinfo(DTYPES[datatype])
    return {"minimum": int(bounds.min), "maximum": int(bounds.max)}


def _described_categories(feature: Feature) -> list[str]:
    """Return what is said of the values of a category that the schema doesn't list."""
    known = feature.categories
    if feature.kind != "category" or not known:
        return []
    if feature.unknown == "pass":
        return [f"known values: {', '.join(known[:_MAX_NAMED])}{'...' * (len(known) > _MAX_NAMED)}"]
    if len(known) > _MAX_SHOWN:
        return [f"one of {len(known):,} values, which the model's info lists"]
    return []


def _example(feature: Feature) -> Any:
    """Return a value that the feature accepts: the example, or the next best."""
    value = feature.example
    if value is None and feature.kind in ("number", "integer"):
        value = 0 if feature.minimum is None else feature.minimum
    if value is None and feature.kind == "boolean":
        value = False
    if value is None:
        value = feature.categories[0] if feature.categories else ""
    if isinstance(value, float) and value == int(value):
        return int(value)
    return value


def example_sample(model: Model | None) -> dict[str, Any]:
    """Return an example of a sample, empty if there is no model, or one with too many features."""
    if model is not None and model.handler is not None:
        return {}
    if model is not None and model.steps is not None:
        return {member: _EXAMPLES[member] for member in model.steps.members}
    features = model.manifest.features if model else ()
    if len(features) > _MAX_DESCRIBED:
        return {}
    return {feature.name: _example(feature) for feature in features}


def example_prediction(model: Model | None, sample: dict[str, Any]) -> dict[str, Any] | None:
    """Return the model's prediction for the example; None if it has none, or one too long."""
    if model is None or not sample or model.task.width > _MAX_SHOWN:
        return None
    try:
        prediction = model.predict(_row(model, sample))
    except (InvalidFeatures, InvalidSamples, InputsRejected, NonFiniteOutput):
        return None
    answer: dict[str, Any] = orjson.loads(response_bodies(model).one.encode(prediction))
    return answer


def _row(model: Model, sample: dict[str, Any]) -> Tensors:
    """Return the row of an example."""
    if model.steps is None:
        return model.encoder.encode(sample)
    image, text = sample.get(IMAGE), sample.get(TEXT)
    return model.steps.encode([Sample(image and b64decode(image), text)])


def example_request(model: Model | None, sample: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a request for inference, with one input for each feature of ``sample``, or for each
    small tensor of a model without features; None if there is no model, none so small, or one that
    JSON can't hold.
    """
    if model is None or (model.takes_features and not sample):
        return None
    wanted = _outputs_in_json(model.signature.outputs)
    if not model.takes_features:
        inputs = _example_tensors(model.signature.inputs)
        return None if inputs is None else {"inputs": inputs, **wanted}
    places = model.encoder.places
    inputs = [
        {
            "name": name,
            "shape": [1],
            "datatype": _datatype_of(value, places[name][0].datatype),
            "data": [value],
        }
        for name, value in sample.items()
    ]
    return {"inputs": inputs, **wanted}


def _outputs_in_json(specs: Sequence[TensorSpec]) -> dict[str, Any]:
    """Return what a request says of its outputs: nothing where JSON can hold all of them."""
    names = [spec.name for spec in specs if spec.datatype not in ONLY_BINARY]
    if len(names) == len(specs):
        return {}
    if not names:
        return {"parameters": {"binary_data_output": True}}
    return {"outputs": [{"name": name} for name in names]}


def _datatype_of(value: Any, datatype: str) -> str:
    """Return the datatype of a value of a feature, which is in a tensor of ``datatype``."""
    if isinstance(value, str):
        return "BYTES"
    if isinstance(value, bool):
        return "BOOL"
    return datatype if DTYPES[datatype].kind in "iu" else "FP64"


def _example_tensors(specs: Sequence[TensorSpec]) -> list[dict[str, Any]] | None:
    shapes = [[abs(size) for size in spec.shape] for spec in specs]
    is_large = sum(map(prod, shapes)) > _MAX_DESCRIBED
    if is_large or any(spec.datatype in ONLY_BINARY for spec in specs):
        return None
    return [
        {
            "name": spec.name,
            "shape": shape,
            "datatype": spec.datatype,
            "data": [_EMPTY.get(spec.datatype, 0)] * prod(shape),
        }
        for spec, shape in zip(specs, shapes, strict=True)
    ]


def describe_model(model: Model | None) -> str:
    """Return the description of the API, in Markdown."""
    if model is None:
        return "No model is loaded."
    manifest = model.manifest
    serves = f"Serves the model **{model.name}**, version {manifest.version}. "
    if not model.takes_samples:
        return f"{serves}{manifest.description}\n\n{TakesNoFeatures(model.name)}"
    return f"{serves}{manifest.description}\n\n{_described_answers(model)}"


def _described_answers(model: Model) -> str:
    """Return a sentence on what the model answers."""
    manifest = model.manifest
    if manifest.targets:
        units = [f"{t.name} in {t.unit}" if t.unit else t.name for t in manifest.targets]
        return f"Predicts {_some(units)}."
    if manifest.labels:
        return f"Labels, of which any may apply: {_some(_by_key(manifest.labels))}."
    if manifest.classes:
        return f"Classes: {_some(_by_key(manifest.classes))}."
    answer = model.task.answer
    if answer is None:  # its handler makes one
        return ""
    shape = answer.shape[1:]
    return f"Returns a vector of {' x '.join(map(str, shape))} numbers." if shape else ""


def _by_key(names: Sequence[str]) -> list[str]:
    return [f"`class_{i}` is {name!r}" for i, name in enumerate(names)]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MAX_SHOWN
    return ", ".join(names[:_MAX_SHOWN]) + (f", and {more:,} more" if more > 0 else "")
