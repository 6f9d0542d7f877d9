"""A model's metadata in the protocol, and its configuration in Triton's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...model.model import Model
from ...model.signature import TensorSpec

_PLATFORMS = {"onnx": "onnxruntime_onnx", "torch": "pytorch_libtorch", "handler": "python"}
"""By our runtimes, Triton's names, which clients know."""
_TRITON_TYPES = {"BYTES": "TYPE_STRING"}


def model_metadata(model: Model, versions: Sequence[str]) -> dict[str, Any]:
    """Return the metadata of ``model``, of which ``versions`` are loaded."""
    return {
        "name": model.name,
        "platform": _PLATFORMS[model.runtime.name],
        "versions": versions,
        "inputs": model.signature.inputs,
        "outputs": model.signature.outputs,
    }


def model_config(model: Model, max_batch_size: int) -> dict[str, Any]:
    """Return the configuration of ``model``, which takes at most ``max_batch_size`` rows at once;
    0 where it has no rows.

    Format: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
    """
    return {
        "name": model.name,
        "platform": _PLATFORMS[model.runtime.name],
        "max_batch_size": max_batch_size,
        "input": [_tensor_config(model, spec) for spec in model.signature.inputs],
        "output": [_tensor_config(model, spec) for spec in model.signature.outputs],
    }


def _tensor_config(model: Model, spec: TensorSpec) -> dict[str, Any]:
    """Describe a tensor, without its first dimension where that is the batch's."""
    data_type = _TRITON_TYPES.get(spec.datatype, f"TYPE_{spec.datatype}")
    dims = spec.shape[1:] if model.manifest.batch else spec.shape
    config: dict[str, Any] = {"name": spec.name, "data_type": data_type, "dims": dims}
    if not dims:  # Triton has no tensor without a dimension beside the batch's
        config |= {"dims": [1], "reshape": {"shape": []}}
    return config
