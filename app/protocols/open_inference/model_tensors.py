"""What a model takes and returns in the protocol's terms, made once for each model."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from ...model.model import Model
from .feature_inputs import FeatureInputs
from .model_outputs import ModelOutputs
from .tensor_inputs import TensorInputs


class ModelTensors:
    """Reads the ``inputs`` of a request for ``model``, and writes its ``outputs``."""

    def __init__(self, model: Model) -> None:
        self.inputs: FeatureInputs | TensorInputs = (
            FeatureInputs(model.encoder)
            if model.takes_features
            else TensorInputs(model.signature.inputs, has_rows=model.manifest.batch)
        )
        self.outputs = ModelOutputs(model)
        self._has_rows = model.manifest.batch

    def largest_batch(self, max_rows: int, max_values: int) -> int:
        """Return the number of rows that a request for all outputs may have; 0 if it has none."""
        if not self._has_rows:
            return 0
        return min(max_rows, max_values // max(1, self.outputs.values_per_row()))


_tensors: WeakKeyDictionary[Model, ModelTensors] = WeakKeyDictionary()


def tensors_of(model: Model) -> ModelTensors:
    """Return what reads and writes the tensors of ``model``."""
    tensors = _tensors.get(model)
    if tensors is None:
        tensors = _tensors[model] = ModelTensors(model)
    return tensors
