"""The schemas of the protocol's payloads, which describe the API and write the small answers."""

from __future__ import annotations

from marshmallow import INCLUDE, Schema, fields, validate

from ..native.schemas import ProblemSchema
from .datatypes import DATATYPES, MAX_RANK

_NAMES = list(DATATYPES)


class _Open(Schema):
    """An object that may have other members, which are ignored."""

    class Meta:
        unknown = INCLUDE


def _said(description: str) -> dict[str, str]:
    return {"description": description}


class ServerMetadataSchema(Schema):
    name = fields.String(required=True)
    version = fields.String(required=True)
    extensions = fields.List(fields.String(), required=True)


class ServerLiveSchema(Schema):
    live = fields.Boolean(required=True)


class ServerReadySchema(Schema):
    ready = fields.Boolean(required=True)


class ModelReadySchema(Schema):
    name = fields.String(required=True)
    ready = fields.Boolean(required=True)


class TensorMetadataSchema(Schema):
    name = fields.String(required=True)
    datatype = fields.String(required=True, metadata={"enum": _NAMES})
    shape = fields.List(fields.Integer(), required=True, metadata=_said("-1 where it varies."))


class ModelMetadataSchema(Schema):
    name = fields.String(required=True)
    platform = fields.String(required=True)
    versions = fields.List(fields.String(), required=True, metadata=_said("Those loaded."))
    inputs = fields.List(fields.Nested(TensorMetadataSchema), required=True)
    outputs = fields.List(fields.Nested(TensorMetadataSchema), required=True)


class InputParametersSchema(_Open):
    binary_data_size = fields.Integer(
        strict=True,
        allow_none=True,
        validate=validate.Range(min=0),
        metadata=_said("How many bytes of the data follow the JSON."),
    )


class InputTensorSchema(_Open):
    name = fields.String(required=True)
    datatype = fields.String(required=True, validate=validate.OneOf(_NAMES))
    shape = fields.List(
        fields.Integer(strict=True, validate=validate.Range(min=0)),
        required=True,
        validate=validate.Length(max=MAX_RANK),
    )
    parameters = fields.Nested(InputParametersSchema, allow_none=True)
    data = fields.List(
        fields.Raw(), allow_none=True, metadata=_said("Flat, or nested as the shape says.")
    )


class OutputParametersSchema(_Open):
    binary_data = fields.Boolean(allow_none=True)
    classification = fields.Integer(
        strict=True,
        allow_none=True,
        validate=validate.Range(min=1),
        metadata=_said("So many classes, as value:index:label."),
    )


class RequestedOutputSchema(_Open):
    name = fields.String(required=True)
    parameters = fields.Nested(OutputParametersSchema, allow_none=True)


class RequestParametersSchema(_Open):
    binary_data_output = fields.Boolean(
        allow_none=True, metadata=_said("For outputs that are not listed.")
    )


class InferenceRequestSchema(_Open):
    id = fields.String(allow_none=True)
    parameters = fields.Nested(RequestParametersSchema, allow_none=True)
    inputs = fields.List(fields.Nested(InputTensorSchema), required=True)
    outputs = fields.List(
        fields.Nested(RequestedOutputSchema), allow_none=True, metadata=_said("By default all.")
    )


class OutputTensorSchema(_Open):
    name = fields.String(required=True)
    datatype = fields.String(required=True, metadata={"enum": _NAMES})
    shape = fields.List(fields.Integer(), required=True)
    data = fields.List(fields.Raw(), metadata=_said("Flat, in row-major order."))


class InferenceResponseSchema(Schema):
    model_name = fields.String(required=True)
    model_version = fields.String(required=True)
    id = fields.String(required=True)
    outputs = fields.List(fields.Nested(OutputTensorSchema), required=True)


class ModelConfigSchema(_Open):
    """Triton's ModelConfig in JSON, as much of it as clients read."""

    name = fields.String(required=True)
    platform = fields.String(required=True)
    max_batch_size = fields.Integer(required=True)
    input = fields.List(fields.Dict(), required=True)
    output = fields.List(fields.Dict(), required=True)


class ModelStatisticsSchema(_Open):
    name = fields.String(required=True)
    version = fields.String(required=True)
    last_inference = fields.Integer(required=True, metadata=_said("Milliseconds since 1970."))
    inference_count = fields.Integer(required=True, metadata=_said("Rows."))
    execution_count = fields.Integer(required=True)
    inference_stats = fields.Dict(required=True)
    batch_stats = fields.List(fields.Dict(), required=True)


class StatisticsSchema(Schema):
    model_stats = fields.List(fields.Nested(ModelStatisticsSchema), required=True)


class IndexRequestSchema(_Open):
    ready = fields.Boolean(allow_none=True, metadata=_said("Only versions that are ready."))


class IndexedVersionSchema(Schema):
    name = fields.String(required=True)
    version = fields.String(required=True)
    state = fields.String(required=True, metadata={"enum": ["READY", "UNAVAILABLE"]})
    reason = fields.String(required=True)


class OpenInferenceErrorSchema(ProblemSchema):
    error = fields.String(required=True)


SERVER_METADATA = ServerMetadataSchema()
SERVER_LIVE = ServerLiveSchema()
SERVER_READY = ServerReadySchema()
MODEL_READY = ModelReadySchema()
MODEL_METADATA = ModelMetadataSchema()
INFERENCE_REQUEST = InferenceRequestSchema()
INFERENCE_RESPONSE = InferenceResponseSchema()
MODEL_CONFIG = ModelConfigSchema()
STATISTICS = StatisticsSchema()
INDEX_REQUEST = IndexRequestSchema()
INDEX = IndexedVersionSchema(many=True)
OPEN_INFERENCE_ERROR = OpenInferenceErrorSchema()
