"""Exported programs: load a ``.pt2`` file, run it, and export it to ONNX.

Torch loads the safe copy made by `archive`, and runs the form made by `functional`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..model.errors import BundleError, first_line
from .archive import safe_archive
from .functional import functional
from .network import OPSET, quiet_exporter
from .source import DYNAMIC_BATCH, Answers, Matrix, Source, asking

_ROWS = 256
"""The most rows that are passed to the original at once, if it takes any number."""
_MAX_ROWS = 10_000


def read_program(path: Path) -> Source:
    """Read an exported program of one float matrix to one tensor, and export it to ONNX.

    Nothing in the file is executed but operators on tensors. Raises `BundleError`, which says what
    is wrong with the file, or with the program in it.
    """
    archive, version = safe_archive(path)
    with quiet_exporter():
        try:
            program = torch.export.load(archive)
        except Exception as error:  # torch raises various exceptions for what it can't rebuild
            raise BundleError(
                f"{path} was written by torch {version} and can't be loaded by torch "
                f"{torch.__version__}: {first_line(error)}."
            ) from error
        try:
            program = functional(program, path)
        except BundleError:
            raise
        except Exception as error:  # mostly for sizes that don't fit each other
            raise BundleError(
                f"{path} can't be traced by torch {torch.__version__}: {first_line(error)}."
            ) from error
    return _source(path, program)


def _source(path: Path, program: torch.export.ExportedProgram) -> Source:
    value = _input(program)
    if value is None:
        raise BundleError(f"{path} takes no tensor; one matrix of features is expected.")
    if value.dtype not in (torch.float32, torch.float64) or value.ndim != 2:
        raise BundleError(
            f"{path} takes {value.dtype} of {value.ndim} dimension(s); a matrix of float32 or "
            "float64, one row per sample, is expected (model.float() converts a model)."
        )
    rows, width = value.shape
    fixed = rows if isinstance(rows, int) else None
    if not isinstance(width, int):
        raise BundleError(f"{path} takes any number of columns; let only the rows be dynamic.")
    part = _rows_allowed(program, rows) if fixed is None else fixed
    if not 0 < part <= _MAX_ROWS:
        raise BundleError(f"{path} was exported for {part:,} rows. {DYNAMIC_BATCH}.")
    try:
        with quiet_exporter():
            module = program.module()
            exported = torch.onnx.export(
                program,
                (torch.zeros((part, width), dtype=value.dtype),),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # an operator may have no counterpart
        raise BundleError(
            f"{path} can't be exported to ONNX: {first_line(error)}. If you can export the model "
            "to ONNX yourself, pack that file."
        ) from error
    assert exported is not None  # dynamo=True always returns a program

    def run(matrix: Matrix) -> Answers:
        with torch.inference_mode():
            answer = module(torch.from_numpy(np.ascontiguousarray(matrix)).to(value.dtype))
        answers: Answers = answer.double().numpy()
        return answers

    ask = asking(run, path, width=width, rows=part)
    return Source(path, exported.model_proto, ask, fixed, value.dtype is torch.float64)


def _input(program: torch.export.ExportedProgram) -> torch.Tensor | None:
    """Return the shape and type of the program's input, as a tensor without values."""
    given = program.graph_signature.user_inputs
    for node in program.graph.find_nodes(op="placeholder"):
        if node.name in given and isinstance(node.meta.get("val"), torch.Tensor):
            value: torch.Tensor = node.meta["val"]
            return value
    return None


def _rows_allowed(program: torch.export.ExportedProgram, rows: Any) -> int:
    """Return a number of rows that the program accepts."""
    allowed = program.range_constraints.get(rows.node.expr)
    if allowed is None:
        return _ROWS
    return int(max(min(_ROWS, allowed.upper), min(allowed.lower, _MAX_ROWS + 1), 1))
