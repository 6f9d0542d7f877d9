"""The arrays that a handler makes of one sample, checked against the inputs of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import listed, shown
from ..signature import DTYPES, Array, Tensors, TensorSpec
from .errors import HandlerFailed


def as_inputs(made: Any, inputs: Sequence[TensorSpec], *, in_rows: bool) -> tuple[Tensors, bool]:
    """Return the arrays of one sample as the network takes them, and whether rows were added.

    Where the inputs have rows (``in_rows``), an array of a sample may be without them, as it
    usually is: it then becomes one row. With them, a sample may be several rows. Raises
    `HandlerFailed` with a sentence for arrays that the network doesn't take.
    """
    if not isinstance(made, Mapping):
        raise HandlerFailed(
            f"preprocess must return a dict of arrays by the names of the inputs "
            f"({listed(spec.name for spec in inputs)}), not a value of type "
            f"{type(made).__name__[:80]}"
        )
    names = {spec.name for spec in inputs}
    if made.keys() != names:
        raise HandlerFailed(
            f"preprocess must return {listed(sorted(names))}; it returned "
            f"{listed(sorted(str(name) for name in made))}"
        )
    arrays = {spec.name: _as_array(made[spec.name], spec) for spec in inputs}
    alone = in_rows and all(arrays[spec.name].ndim == len(spec.shape) - 1 for spec in inputs)
    if alone:
        arrays = {name: array[np.newaxis] for name, array in arrays.items()}
    for spec in inputs:
        _check_shape(arrays[spec.name], spec, alone=alone, in_rows=in_rows)
    counts = {len(array) for array in arrays.values()} if in_rows else {1}
    if len(counts) > 1 or 0 in counts:
        raise HandlerFailed(
            "preprocess must return one row or more, as many in each array; it returned "
            f"{' and '.join(map(str, sorted(counts)))}"
        )
    return arrays, alone


def _as_array(value: Any, spec: TensorSpec) -> Array:
    wanted = DTYPES[spec.datatype]
    try:
        array = np.asarray(value)
        if wanted.kind == "O":
            return _of_strings(array, spec)
        if not np.can_cast(array.dtype, wanted, "same_kind"):
            raise HandlerFailed(
                f"preprocess returned {shown(spec.name)} as {str(array.dtype)[:40]}, and the input "
                f"is {spec.datatype}"
            )
        with np.errstate(over="ignore"):  # an infinity is the network's to answer
            return np.ascontiguousarray(array, wanted).reshape(array.shape)
    except HandlerFailed:
        raise
    except Exception as error:  # of a library whose arrays don't become numpy's
        raise HandlerFailed(f"preprocess returned {shown(spec.name)}, which is no array") from error


def _of_strings(array: Array, spec: TensorSpec) -> Array:
    strings = array.astype(object)
    if any(not isinstance(value, str) for value in strings.reshape(-1).tolist()):
        raise HandlerFailed(
            f"preprocess returned {shown(spec.name)} with values that are no strings, and the "
            "input is BYTES"
        )
    return strings


def _check_shape(array: Array, spec: TensorSpec, *, alone: bool, in_rows: bool) -> None:
    if not spec.accepts(array.shape):
        found, wanted = list(array.shape), list(spec.shape)
        if alone:
            found, wanted = found[1:], wanted[1:]
        told = " (or a sample without its rows)" if in_rows and not alone else ""
        raise HandlerFailed(
            f"preprocess returned {shown(spec.name)} of shape {found}, and the input is of shape "
            f"{wanted}{told}"
        )


def without_rows(outputs: Tensors, *, alone: bool) -> dict[str, Array]:
    """Return the outputs for one sample: without the rows, if those were added to its arrays."""
    return {name: array[0] if alone else array for name, array in outputs.items()}
