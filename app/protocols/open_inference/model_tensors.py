"""What a model takes and returns in the protocol's terms, made once for each model."""

from __future__ import annotations

from ...model.model import Model
from ...model.signature import Tensors, row_count
from .fast_decoder import FastDecoder
from .feature_inputs import FeatureInputs
from .model_outputs import ModelOutputs
from .request import InferenceRequest, decode_request
from .tensor_inputs import TensorInputs


class ModelTensors:
    """Reads the inputs of requests for ``model``, and writes its ``outputs``."""

    def __init__(self, model: Model) -> None:
        self._inputs: FeatureInputs | TensorInputs = (
            FeatureInputs(model.encoder)
            if model.takes_features
            else TensorInputs(model.signature.inputs, has_rows=model.manifest.batch)
        )
        self._specs = model.signature.inputs
        self._fast = FastDecoder(model.encoder) if model.takes_features else None
        self.outputs = ModelOutputs(model)
        self._has_rows = model.manifest.batch

    def decode(self, body: bytes, json_bytes: int | None) -> InferenceRequest:
        """Return the request that ``body`` holds; see `decode_request`."""
        if self._fast is not None and json_bytes is None:
            request = self._fast.decode(body)
            if request is not None:
                return request
        return decode_request(body, json_bytes, self._specs, self._inputs.max_inputs)

    def count_rows(self, request: InferenceRequest) -> int:
        """Return the number of rows in ``request``, by the shapes of its inputs alone.

        Raises `InvalidRequest` unless they are the model's, of the right datatypes and shapes.
        """
        if request.rows is not None:
            return row_count(request.rows)
        return self._inputs.count_rows(request.inputs)

    def read(self, request: InferenceRequest) -> Tensors:
        """Return the inputs that `count_rows` has accepted. Raises `InvalidRequest`."""
        return self._inputs.read(request.inputs) if request.rows is None else request.rows

    def largest_batch(self, max_rows: int, max_values: int) -> int:
        """Return the number of rows that a request for all outputs may have; 0 if it has none."""
        if not self._has_rows:
            return 0
        return min(max_rows, max_values // max(1, self.outputs.values_per_row()))


def tensors_of(model: Model) -> ModelTensors:
    """Return what reads and writes the tensors of ``model``."""
    tensors: ModelTensors | None = model.derived.get(ModelTensors)
    if tensors is None:
        tensors = model.derived[ModelTensors] = ModelTensors(model)
    return tensors
