"""Graphs that take one row at a time, for any number of rows.

Many exporters fix the size of the batch at 1. What such a graph says of a row doesn't depend on the
others, so rows run one after the other, and their outputs are joined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from .errors import BundleError, InputsRejected, shown
from .signature import Array, Signature, TensorSpec, no_rows, row_at, row_count

_Spec = TypeVar("_Spec", bound=TensorSpec)


def takes_one_row(specs: Sequence[TensorSpec], shapes: Sequence[Sequence[Any]]) -> bool:
    """Return True if a graph with inputs of ``shapes`` takes one row where ``specs`` have any."""
    return (
        bool(specs)
        and all(spec.shape[:1] == (-1,) for spec in specs)
        and all([*shape[:1]] == [1] for shape in shapes)
    )


def one_row(signature: Signature) -> Signature:
    """Return ``signature``, whose tensors have any number of rows, with one.

    Raises `BundleError` if an output has no rows.
    """
    for spec in signature.outputs:
        if spec.shape[:1] != (-1,):
            raise BundleError(
                f"The network takes one row at a time, so each output must have rows, too: "
                f"{shown(spec.name)} must have -1 as the first dimension of its shape, "
                f"{list(spec.shape)}."
            )
    return Signature(
        inputs=tuple(map(_of_one, signature.inputs)),
        outputs=tuple(map(_of_one, signature.outputs)),
    )


def _of_one(spec: _Spec) -> _Spec:
    return msgspec.structs.replace(spec, shape=(1, *spec.shape[1:]))


class RowByRow:
    """Runs a graph of one row for each row of its inputs, and joins the outputs.

    ``run`` is what runs the graph (`app.model.onnx_runtime.Run`), with outputs as in ``specs``, in
    their order. All rows of a call count as one run: they are stopped together.
    """

    def __init__(self, run: Callable[..., Sequence[Array]], specs: Sequence[TensorSpec]) -> None:
        self._run = run
        self._specs = specs

    def __call__(
        self, names: Sequence[str], inputs: Mapping[str, Array], options: Any
    ) -> Sequence[Array]:
        rows = row_count(inputs)
        found = [self._run(names, row_at(inputs, i), options) for i in range(rows)]
        parts = zip(*found, strict=True) if rows else [()] * len(self._specs)
        return [_joined(spec, part) for spec, part in zip(self._specs, parts, strict=True)]


def _joined(spec: TensorSpec, parts: Sequence[Array]) -> Array:
    """Return an output of all rows, from ``parts`` of one row each."""
    if not parts:
        return no_rows(spec)
    for part in parts:
        if part.shape[:1] != (1,):
            raise BundleError(
                f"The network returned {shown(spec.name)} of the shape {list(part.shape)} for one "
                "row: its first dimension must be 1."
            )
        if part.shape != parts[0].shape:
            raise InputsRejected(
                f"{shown(spec.name)} has another shape for one row, {list(part.shape)}, than for "
                f"another, {list(parts[0].shape)}; send one row in each request"
            )
    return np.concatenate(parts)
