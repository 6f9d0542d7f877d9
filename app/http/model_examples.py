"""The part of the OpenAPI document about a model: the schema of its features, and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import orjson

from ..model.errors import NonFiniteOutput, TakesNoFeatures
from ..model.features import FLOAT32_OVERFLOW, Feature
from ..model.model import Model
from ..model.signature import TensorSpec
from ..protocols.native.schemas import PREDICTION

_MAX_SHOWN = 100
"""The most classes that are listed, or shown in an example."""
_EMPTY: Mapping[str, Any] = {"BOOL": False, "BYTES": ""}
"""By datatype, the value in an example of a tensor; 0 for numbers."""
_MAX_DESCRIBED = 1000
"""The most features that are described one by one: the document is built for each request."""


def features_schema(model: Model | None) -> dict[str, Any]:
    """Return the schema of one sample for ``model``; None if none is loaded."""
    if model is None:
        return {"type": "object", "description": "No model is loaded, so the features are unknown."}
    if not model.takes_features:
        return {"type": "object", "description": str(TakesNoFeatures(model.name))}
    features = model.manifest.features
    if len(features) > _MAX_DESCRIBED:
        return {
            "type": "object",
            "description": f"A number for each of {len(features):,} features, which the model's "
            "info lists.",
            "additionalProperties": {"type": "number", "nullable": True},
        }
    return {
        "type": "object",
        "properties": {feature.name: _feature_schema(feature) for feature in features},
        "required": [feature.name for feature in features],
        "additionalProperties": False,
    }


def _feature_schema(feature: Feature) -> dict[str, Any]:
    seen = (
        f"{feature.minimum:g} to {feature.maximum:g} in training"
        if feature.minimum is not None and feature.maximum is not None
        else ""
    )
    described = [part for part in (feature.description, feature.unit, seen) if part]
    schema: dict[str, Any] = {
        "type": "number",
        "description": "; ".join(described),
        # What is finite as float32; the range of the training data is not a bound.
        "minimum": -FLOAT32_OVERFLOW,
        "exclusiveMinimum": True,
        "maximum": FLOAT32_OVERFLOW,
        "exclusiveMaximum": True,
        "example": _example(feature),
    }
    if feature.nullable:
        schema["nullable"] = True
    return schema


def _example(feature: Feature) -> float:
    value = next((v for v in (feature.example, feature.minimum) if v is not None), 0.0)
    return int(value) if value == int(value) else value


def example_sample(model: Model | None) -> dict[str, float]:
    """Return an example of a sample, empty if there is no model, or one with too many features."""
    features = model.manifest.features if model else ()
    if len(features) > _MAX_DESCRIBED:
        return {}
    return {feature.name: _example(feature) for feature in features}


def example_prediction(model: Model | None, sample: dict[str, float]) -> dict[str, Any] | None:
    """Return the model's prediction for the example; None if it has none, or one too long."""
    if model is None or len(model.classes) > _MAX_SHOWN or not sample:
        return None
    try:
        prediction = model.predict(model.encoder.encode(sample))
    except NonFiniteOutput:
        return None
    answer: dict[str, Any] = orjson.loads(PREDICTION.encode(prediction))
    return answer


def example_request(model: Model | None, sample: Mapping[str, float]) -> dict[str, Any] | None:
    """Return a request for inference, with one input for each feature of ``sample``, or for each
    small tensor of a model without features; None if there is no model, or none so small.
    """
    if model is None or (model.takes_features and not sample):
        return None
    if not model.takes_features:
        return _example_tensors(model.signature.inputs)
    inputs = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
        for name, value in sample.items()
    ]
    return {"inputs": inputs}


def _example_tensors(specs: Sequence[TensorSpec]) -> dict[str, Any] | None:
    shapes = [[abs(size) for size in spec.shape] for spec in specs]
    if sum(map(prod, shapes)) > _MAX_DESCRIBED:
        return None
    inputs = [
        {
            "name": spec.name,
            "shape": shape,
            "datatype": spec.datatype,
            "data": [_EMPTY.get(spec.datatype, 0)] * prod(shape),
        }
        for spec, shape in zip(specs, shapes, strict=True)
    ]
    return {"inputs": inputs}


def describe_model(model: Model | None) -> str:
    """Return the description of the API, in Markdown."""
    if model is None:
        return "No model is loaded."
    manifest = model.manifest
    serves = f"Serves the model **{model.name}**, version {manifest.version}. "
    if not model.takes_features:
        return f"{serves}{manifest.description}\n\n{TakesNoFeatures(model.name)}"
    shown = enumerate(manifest.classes[:_MAX_SHOWN])
    classes = ", ".join(f"`class_{i}` is {name!r}" for i, name in shown)
    more = len(manifest.classes) - _MAX_SHOWN
    return (
        f"{serves}{manifest.description}\n\n"
        f"Classes: {classes}{f', and {more:,} more' if more > 0 else ''}."
    )
