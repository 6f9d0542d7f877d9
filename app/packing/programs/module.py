"""A module of torch in memory, exported to ONNX with the Python code that it was made by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...model.errors import BundleError, first_line
from ...version import COMMAND
from ..network import OPSET, quiet_exporter

if TYPE_CHECKING:
    import onnx


def exported(
    module: torch.nn.Module,
    examples: Sequence[torch.Tensor],
    *,
    inputs: Sequence[str],
    output: str,
    dynamic_shapes: Any,
    path: Path,
) -> onnx.ModelProto:
    """Return ``module`` as a graph of its tensors ``inputs``, whose ``dynamic_shapes`` are those
    of `torch.export.export`, and of its only ``output``.

    ``path`` is for messages. Raises `BundleError` for what has no counterpart in ONNX.
    """
    try:
        with quiet_exporter():
            program = torch.onnx.export(
                module,
                tuple(examples),
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes=dynamic_shapes,
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # an operator may have no counterpart
        cause: BaseException = error
        for _ in range(10):
            cause = cause.__cause__ or cause
        raise BundleError(
            f"{path} can't be exported by torch {torch.__version__}: {first_line(cause)}. If you "
            f"can export it yourself, pack that file: {COMMAND} model pack model.onnx"
        ) from error
    assert program is not None  # dynamo=True always returns a program
    return program.model_proto
