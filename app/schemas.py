"""The schemas of every request and response: they validate, serialise and describe the API.

Features have no fixed schema: `make_request_bodies` builds one from the model that is loaded. A
whole row is one field, which gives a float32 matrix, so nothing behind it handles names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import chain, islice, repeat
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import orjson
from marshmallow import RAISE, Schema, ValidationError, fields, pre_load
from msgspec import Raw
from numpy.typing import NDArray

from app.acceptance import Acceptance
from app.http import raw_json
from app.http.samples import SampleReader
from app.model.errors import MAX_FAULTS, InvalidFeatures
from app.model.features import FeatureEncoder
from app.model.model import BatchPrediction, Model, Prediction
from app.wire import check_json, not_json

_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_MISSING: dict[str, Any] = {"required": "is missing", "null": "must not be null"}


class FeaturesField(fields.Field[NDArray[np.float32]]):
    """One sample: an object of numbers on the wire, a float32 row ``(1, width)`` inside."""

    def __init__(self, samples: SampleReader, **kwargs: Any) -> None:
        super().__init__(required=True, error_messages=_MISSING, **kwargs)
        self.samples = samples

    def _deserialize(
        self, value: Raw, attr: str | None, data: Any, **kwargs: Any
    ) -> NDArray[np.float32]:
        try:
            return self.samples.row(value)
        except InvalidFeatures as error:
            raise ValidationError(list(error.faults)) from None


class SamplesField(fields.Field[NDArray[np.float32]]):
    """Many samples: an array of objects on the wire, a float32 matrix ``(n, width)`` inside."""

    def __init__(self, samples: SampleReader, max_rows: int, **kwargs: Any) -> None:
        messages = {**_MISSING, "type": "must be an array of samples"}
        super().__init__(required=True, error_messages=messages, **kwargs)
        self.samples = samples
        self.max_rows = max_rows

    def _deserialize(
        self, value: Raw, attr: str | None, data: Any, **kwargs: Any
    ) -> NDArray[np.float32]:
        if not raw_json.is_array(value):
            raise self.make_error("type")
        try:
            return self.samples.matrix(value, self.max_rows)
        except InvalidFeatures as error:
            raise ValidationError(list(error.faults)) from None


class _Request(Schema):
    """An object of one member, which is opened but not read: its field does that."""

    error_messages = {"type": "must be an object", "unknown": "is not known here"}  # noqa: RUF012

    class Meta:
        unknown = RAISE

    @pre_load
    def _open(self, body: Raw, **kwargs: Any) -> object:
        """Return the members of the body: the one that is known, and the first that are not."""
        if not raw_json.is_object(body):
            return raw_json.outline(body)
        (known,) = self.fields
        beside = raw_json.commas(body) - raw_json.commas_of_member(body, known)
        if beside > raw_json.MOST_COMMAS:
            raise ValidationError(
                f"has {beside:,} commas beside those of {known!r}, which is all that is known here"
            )
        members = raw_json.members(body)
        unknown = islice((name for name in members if name != known), MAX_FAULTS)
        return {
            name: None if raw_json.is_null(members[name]) else members[name]
            for name in chain(unknown, members.keys() & {known})
        }


@dataclass(frozen=True, slots=True)
class RequestBody:
    """A kind of body that a model is sent: how to accept it fast, and a schema for the rest."""

    accept: Callable[[bytes], NDArray[np.float32] | None]
    schema: Schema

    def load(self, body: bytes) -> NDArray[np.float32]:
        """Give the rows in ``body``: float32, shape ``(n, width)``, NaN where it says null.

        Raises 400 for what isn't JSON, `ValidationError`, and `BatchTooLarge`.
        """
        rows = self.accept(body)
        if rows is not None:
            return rows
        document: Any = check_json(body)
        try:
            loaded: dict[str, NDArray[np.float32]] = self.schema.load(document)
        except RecursionError:  # there was room for it when it was checked, less deep in calls
            raise not_json(raw_json.NESTED_TOO_DEEPLY) from None
        except ValidationError as error:
            messages = error.messages
            # marshmallow's frames hold their own error: in a circle it and the document would
            # stay until the garbage is collected.
            error.__traceback__ = None
        else:
            return next(iter(loaded.values()))
        raise ValidationError(messages)


@dataclass(frozen=True, slots=True)
class RequestBodies:
    """The kinds of bodies that a model's encoder accepts."""

    predict: RequestBody
    batch: RequestBody


_bodies: WeakKeyDictionary[Model, RequestBodies] = WeakKeyDictionary()


def request_bodies(model: Model, max_rows: int) -> RequestBodies:
    """Give what reads the bodies that ``model`` is sent; it is built once for each."""
    bodies = _bodies.get(model)
    if bodies is None:
        bodies = _bodies[model] = make_request_bodies(model.encoder, max_rows)
    return bodies


def make_request_bodies(encoder: FeatureEncoder, max_rows: int) -> RequestBodies:
    """Build what reads the bodies for ``encoder``, of ``max_rows`` at most."""
    acceptance, samples = Acceptance(encoder, max_rows), SampleReader(encoder)
    predict = _Request.from_dict({"features": FeaturesField(samples)}, name="PredictRequest")
    batch = _Request.from_dict({"samples": SamplesField(samples, max_rows)}, name="BatchRequest")
    return RequestBodies(
        RequestBody(acceptance.row, predict()), RequestBody(acceptance.matrix, batch())
    )


class ProbabilitiesField(fields.Dict):
    """Probabilities by position: ``{"class_0": p, "class_1": p, ...}``."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return dict(zip(_class_keys(len(value)), value, strict=True))


@lru_cache(maxsize=16)
def _class_keys(classes: int) -> tuple[str, ...]:
    return tuple(f"class_{index}" for index in range(classes))


def _said(description: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"description": description, **more}}


def _time(timestamp: datetime) -> str:
    return timestamp.isoformat(timespec="microseconds")  # of one length, a round second, too


class PredictionSchema(Schema):
    prediction = fields.Integer(
        required=True, attribute="class_index", **_said("The index of the most probable class.")
    )
    label = fields.String(required=True, **_said("The name of that class."))
    probabilities = ProbabilitiesField(
        required=True,
        keys=fields.String(),
        values=fields.Float(),
        **_said("The probability of each class, by its position in the model's classes."),
    )
    model_version = fields.String(required=True)
    timestamp = fields.DateTime(required=True, format="iso", **_said("UTC, with its offset."))

    def encode(self, prediction: Prediction) -> bytes:
        """Write what `dump` gives as JSON, and a newline for those at a terminal.

        Probabilities are written with the digits that tell a float32 from its neighbours.
        """
        document = {
            "prediction": prediction.class_index,
            "label": prediction.label,
            "probabilities": dict(
                zip(
                    _class_keys(len(prediction.probabilities)),
                    map(np.float32, prediction.probabilities),
                    strict=True,
                )
            ),
            "model_version": prediction.model_version,
            "timestamp": _time(prediction.timestamp),
        }
        return orjson.dumps(document, option=_NUMPY | orjson.OPT_APPEND_NEWLINE)


class BatchResponseSchema(Schema):
    predictions = fields.List(fields.Nested(PredictionSchema), required=True)
    total_samples = fields.Integer(required=True)
    model_version = fields.String(required=True)

    def encode(self, batch: BatchPrediction) -> bytes:
        """Write what `dump` gives as JSON, and a newline.

        No row becomes an object of Python's: what rows share is written once, and the numbers of
        a column are written together.
        """
        version = orjson.dumps(batch.model_version)
        heads = [
            b'{"prediction":%d,"label":%b,"probabilities":{"class_0":'
            % (index, orjson.dumps(label))
            for index, label in enumerate(batch.classes)
        ]
        end = b'},"model_version":%b,"timestamp":"%b"},' % (
            version,
            _time(batch.timestamp).encode(),
        )
        pieces: list[Iterable[bytes]] = [map(heads.__getitem__, batch.class_indices.tolist())]
        for column in range(len(batch.classes)):
            if column:
                pieces.append(repeat(b',"class_%d":' % column))
            numbers = np.ascontiguousarray(batch.probabilities[:, column])
            pieces.append(orjson.dumps(numbers, option=_NUMPY)[1:-1].split(b","))
        pieces.append(repeat(end))
        rows = b"".join(chain.from_iterable(zip(*pieces, strict=False)))[:-1]
        return b'{"predictions":[%b],"total_samples":%d,"model_version":%b}\n' % (
            rows,
            len(batch),
            version,
        )


class LinksSchema(Schema):
    message = fields.String(required=True)
    version = fields.String(required=True, **_said("The version of Lantern."))
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
    reason = fields.String(**_said("Why it is unhealthy."))


class ProbeSchema(Schema):
    status = fields.String(required=True, metadata={"enum": ["live", "ready"]})


class FeatureSchema(Schema):
    name = fields.String(required=True)
    description = fields.String(required=True)
    unit = fields.String(required=True)
    minimum = fields.Float(required=True, allow_none=True, **_said("The least value in training."))
    maximum = fields.Float(
        required=True, allow_none=True, **_said("The greatest value in training.")
    )
    nullable = fields.Boolean(
        required=True, **_said("Whether null is accepted; it is then imputed.")
    )
    example = fields.Float(required=True, allow_none=True)


class ModelInfoSchema(Schema):
    name = fields.String(required=True)
    model_version = fields.String(required=True)
    description = fields.String(required=True)
    created_at = fields.String(required=True, allow_none=True)
    model_loaded = fields.Boolean(required=True)
    num_features = fields.Integer(required=True)
    feature_names = fields.List(fields.String(), required=True)
    features = fields.List(fields.Nested(FeatureSchema), required=True)
    classes = fields.List(fields.String(), required=True)
    preprocessing = fields.List(fields.Dict(keys=fields.String()), required=True)
    training = fields.Dict(keys=fields.String(), required=True)
    runtime = fields.String(required=True, metadata={"enum": ["onnx", "torch"]})
    device = fields.String(required=True)
    checksum = fields.String(
        required=True, **_said("Of the network's file: the algorithm, a colon, hexadecimal.")
    )
    loaded_at = fields.DateTime(required=True, format="iso")
    release = fields.Nested("ReleaseSchema", required=True)


class ReleaseSchema(Schema):
    stable = fields.String(required=True, allow_none=True, **_said("The version that serves."))
    candidate = fields.String(required=True, allow_none=True, **_said("The one beside it."))
    mode = fields.String(
        required=True, allow_none=True, metadata={"enum": ["canary", "shadow", None]}
    )
    share = fields.Float(
        required=True, allow_none=True, **_said("Of the requests, how many a canary answers.")
    )
    fault = fields.String(
        required=True, allow_none=True, **_said("Why the release is not served as it stands.")
    )


class ListedModelSchema(Schema):
    name = fields.String(required=True)
    release = fields.Nested(ReleaseSchema, required=True)


class ModelsSchema(Schema):
    models = fields.List(fields.Nested(ListedModelSchema), required=True)


class FaultSchema(Schema):
    pointer = fields.String(required=True, **_said("A JSON pointer (RFC 6901) into the body."))
    detail = fields.String(required=True)


class ProblemSchema(Schema):
    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    instance = fields.String(required=True)
    request_id = fields.String(required=True)
    errors = fields.List(
        fields.Nested(FaultSchema), required=True, **_said("Every fault found, at most 100.")
    )


PREDICTION = PredictionSchema()
BATCH_RESPONSE = BatchResponseSchema()
LINKS = LinksSchema()
HEALTH = HealthSchema()
PROBE = ProbeSchema()
MODEL_INFO = ModelInfoSchema()
MODELS = ModelsSchema()
PROBLEM = ProblemSchema()
