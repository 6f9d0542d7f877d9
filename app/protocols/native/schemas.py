"""The marshmallow schemas of every request and response: they validate, dump and describe the API.

Features have no fixed schema: `make_request_bodies` builds one from the loaded model. A whole row
is one field, which loads the model's tensors, so nothing after it handles names. The schemas of
images and texts are in `sample_schemas`, and those of the responses to predictions in
`predictions`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, get_args

from marshmallow import Schema, ValidationError, fields
from msgspec import Raw, to_builtins

from ...model.encoder import FeatureEncoder
from ...model.errors import InvalidFeatures, TakesNoFeatures
from ...model.manifest import TaskName
from ...model.model import Model
from ...model.signature import Role, Tensors
from .fast_decoder import FastDecoder
from .media import MediaBodies
from .media_types import ONLY_JSON, MediaTypes
from .predictions import ResponseBodies, doc, response_bodies
from .request_schema import MISSING, RequestSchema, SamplesField
from .samples import SampleReader


class FeaturesField(fields.Field[Tensors]):
    """One sample: an object of values in JSON, a row when loaded."""

    def __init__(self, samples: SampleReader, **kwargs: Any) -> None:
        super().__init__(required=True, error_messages=MISSING, **kwargs)
        self.samples = samples

    def _deserialize(self, value: Raw, attr: str | None, data: Any, **kwargs: Any) -> Tensors:
        try:
            return self.samples.row(value)
        except InvalidFeatures as error:
            raise ValidationError(list(error.faults)) from None


@dataclass(frozen=True, slots=True)
class RequestBody:
    """A kind of request body of models with features: JSON.

    ``accept`` decodes a valid one fast, or returns None; ``schema`` loads any other. The values of
    one sample are at ``place``.
    """

    accept: Callable[[bytes], Tensors | None]
    schema: RequestSchema
    media_types: ClassVar[MediaTypes] = ONLY_JSON
    place: ClassVar[tuple[str, ...]] = ("features",)

    def load(self, body: bytes) -> Tensors:
        """Return the rows in ``body``, with NaN for null where that can be.

        Raises `NotJson`, `ValidationError`, and `BatchTooLarge`.
        """
        rows = self.accept(body)
        if rows is not None:
            return rows
        loaded: dict[str, Tensors] = self.schema.load_json(body)
        return next(iter(loaded.values()))


@dataclass(frozen=True, slots=True)
class RequestBodies:
    """The request bodies for a model with features."""

    predict: RequestBody
    batch: RequestBody


@dataclass(frozen=True, slots=True)
class Bodies:
    """The bodies of the requests and responses of one model."""

    requests: RequestBodies | MediaBodies
    responses: ResponseBodies


def bodies_of(model: Model, max_rows: int) -> Bodies:
    """Return the bodies for ``model``, which are built once.

    Raises `TakesNoFeatures` where it takes other tensors.
    """
    bodies: Bodies | None = model.derived.get(Bodies)
    if bodies is None:
        if not model.takes_samples:
            raise TakesNoFeatures(model.name)
        requests: RequestBodies | MediaBodies
        if model.steps is not None:
            requests = MediaBodies.of(model.steps.members, max_rows)
        else:
            requests = make_request_bodies(model.encoder, max_rows)
        bodies = model.derived[Bodies] = Bodies(requests, response_bodies(model))
    return bodies


def make_request_bodies(encoder: FeatureEncoder, max_rows: int) -> RequestBodies:
    """Build the request bodies for ``encoder``, with at most ``max_rows``."""
    decoder, samples = FastDecoder(encoder, max_rows), SampleReader(encoder)
    predict = RequestSchema.of("PredictRequest", {"features": FeaturesField(samples)})
    rows = SamplesField(partial(samples.rows, max_rows=max_rows))
    batch = RequestSchema.of("BatchRequest", {"samples": rows})
    return RequestBodies(RequestBody(decoder.row, predict), RequestBody(decoder.rows, batch))


class LinksSchema(Schema):
    message = fields.String(required=True)
    version = fields.String(required=True, **doc("The version of Lantern."))
    docs = fields.String(required=True)
    openapi = fields.String(required=True)
    health = fields.String(required=True)
    model = fields.String(required=True)
    models = fields.String(required=True)
    predict = fields.String(required=True)
    batch = fields.String(required=True)
    metrics = fields.String(required=True)


class HealthSchema(Schema):
    status = fields.String(required=True, metadata={"enum": ["healthy", "unhealthy"]})
    model_loaded = fields.Boolean(required=True)
    model_version = fields.String(required=True, allow_none=True)
    timestamp = fields.DateTime(required=True, format="iso")
    reason = fields.String(**doc("Why it is unhealthy."))


class ProbeSchema(Schema):
    status = fields.String(required=True, metadata={"enum": ["live", "ready"]})


class FeatureSchema(Schema):
    name = fields.String(required=True)
    kind = fields.String(
        required=True, metadata={"enum": ["number", "integer", "boolean", "category"]}
    )
    description = fields.String(required=True)
    unit = fields.String(required=True)
    minimum = fields.Float(
        required=True, allow_none=True, **doc("Lowest value in the training data.")
    )
    maximum = fields.Float(
        required=True, allow_none=True, **doc("Highest value in the training data.")
    )
    nullable = fields.Boolean(required=True, **doc("Whether null is accepted; it is imputed."))
    example = fields.Raw(
        required=True,
        allow_none=True,
        **doc(
            "A typical value.",
            oneOf=[{"type": "number"}, {"type": "boolean"}, {"type": "string"}],
        ),
    )
    categories = fields.List(
        fields.String(), required=True, **doc("The values that a category may have.")
    )
    unknown_values = fields.String(  # `unknown` is a setting of marshmallow's
        required=True,
        data_key="unknown",
        attribute="unknown",
        **doc("What happens to any other value of a category.", enum=["refuse", "pass"]),
    )
    tensor = fields.String(required=True, **doc("The input of the network that it is part of."))
    column = fields.Integer(
        required=True,
        allow_none=True,
        **doc("The column of that tensor; null if the feature is all of it."),
    )


ROLES = get_args(Role)


class TargetSchema(Schema):
    name = fields.String(required=True)
    unit = fields.String(required=True)
    description = fields.String(required=True)


class TensorSchema(Schema):
    name = fields.String(required=True)
    datatype = fields.String(required=True)
    shape = fields.List(fields.Integer(), required=True)


class ModelOutputSchema(TensorSchema):
    role = fields.String(required=True, **doc("What the output means.", enum=ROLES))


class ModelInfoSchema(Schema):
    name = fields.String(required=True)
    model_version = fields.String(required=True)
    description = fields.String(required=True)
    created_at = fields.String(required=True, allow_none=True)
    model_loaded = fields.Boolean(required=True)
    num_features = fields.Integer(required=True)
    max_batch_size = fields.Integer(
        required=True,
        **doc("Largest number of samples in one batch; 0 if the model takes no features."),
    )
    feature_names = fields.List(fields.String(), required=True)
    features = fields.List(fields.Nested(FeatureSchema), required=True)
    classes = fields.List(fields.String(), required=True)
    labels = fields.List(fields.String(), required=True)
    targets = fields.List(fields.Nested(TargetSchema), required=True)
    steps = fields.Function(
        lambda info: to_builtins(info["steps"]),
        required=True,
        **doc(
            "How samples become tensors: a step for the image, or the text, of a sample.",
            type="array",
            items={"type": "object"},
        ),
    )
    top = fields.Integer(
        required=True, **doc("How many of the most probable classes predictions list by default.")
    )
    preprocessing = fields.List(fields.Dict(keys=fields.String()), required=True)
    training = fields.Dict(keys=fields.String(), required=True)
    task = fields.String(required=True, metadata={"enum": [*get_args(TaskName)]})
    inputs = fields.List(
        fields.Nested(TensorSchema),
        required=True,
        **doc(
            "What the model takes by the Open Inference Protocol; -1 is a dimension that varies."
        ),
    )
    outputs = fields.List(fields.Nested(ModelOutputSchema), required=True)
    runtime = fields.String(required=True, metadata={"enum": ["onnx", "torch", "handler"]})
    device = fields.String(required=True)
    checksum = fields.String(
        required=True, **doc("Checksum of the network's file, as ALGORITHM:HEX.")
    )
    loaded_at = fields.DateTime(required=True, format="iso")
    release = fields.Nested("ReleaseSchema", required=True)


class ReleaseSchema(Schema):
    stable = fields.String(required=True, allow_none=True, **doc("Version that is served."))
    candidate = fields.String(
        required=True, allow_none=True, **doc("Version under test, if there is one.")
    )
    mode = fields.String(
        required=True, allow_none=True, metadata={"enum": ["canary", "shadow", None]}
    )
    traffic = fields.Float(
        required=True,
        allow_none=True,
        **doc("Fraction of the requests that a canary serves."),
    )
    fault = fields.String(
        required=True,
        allow_none=True,
        **doc("Why the release is not in force, if it is not."),
    )


class ListedModelSchema(Schema):
    name = fields.String(
        required=True,
        allow_none=True,
        **doc("Name in paths; null while it is unknown."),
    )
    release = fields.Nested(ReleaseSchema, required=True)


class ModelsSchema(Schema):
    models = fields.List(fields.Nested(ListedModelSchema), required=True)


class FaultSchema(Schema):
    pointer = fields.String(required=True, **doc("JSON pointer (RFC 6901) into the body."))
    detail = fields.String(required=True)


class ProblemSchema(Schema):
    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    instance = fields.String(required=True)
    request_id = fields.String(required=True)
    errors = fields.List(
        fields.Nested(FaultSchema), required=True, **doc("Faults in the body, at most 100.")
    )


LINKS = LinksSchema()
HEALTH = HealthSchema()
PROBE = ProbeSchema()
MODEL_INFO = ModelInfoSchema()
MODELS = ModelsSchema()
PROBLEM = ProblemSchema()
