"""An example for packing: one array for each input of a graph, by its name.

It is a ``.npz`` (strings as numpy's str), or JSON: ``{"input": [[1, 2]], ...}``, with null for NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from ..documents.suggestions import did_you_mean
from ..model.errors import BundleError, first_line, listed, shown
from ..model.golden import LARGEST_ARRAYS, read_arrays
from ..model.signature import DTYPES, Array, Tensors, TensorSpec, as_datatype
from .json_files import read_object

SUFFIXES = (".npz", ".json")
_ADVICE = "Give an array for each input, by its name, in a small example or a .npz."
_JSON_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "O": ((str,), "a string"),
    "b": ((bool,), "true or false"),
    "f": ((int, float, NoneType), "a number or null"),
    "i": ((int,), "an integer"),
    "u": ((int,), "an integer"),
}
"""By the kind of a datatype, what JSON has for it, and in words."""


def read_example(path: Path, specs: Sequence[TensorSpec]) -> Tensors:
    """Return the arrays in ``path`` for ``specs``, in their order. Raises `BundleError`."""
    values = (
        read_arrays(path)
        if path.suffix == ".npz"
        else read_object(path, LARGEST_ARRAYS, advice=_ADVICE)
    )
    names = [spec.name for spec in specs]
    missing = [name for name in names if name not in values]
    unknown = next((name for name in values if name not in names), None)
    if missing:
        raise BundleError(
            f"{path} has no array for {listed(map(repr, missing))}; the model takes "
            f"{listed(map(_described, specs))}."
        )
    if unknown is not None:
        hint = did_you_mean(unknown, names)
        raise BundleError(
            f"{path} has {shown(unknown)}, which is not an input of the model"
            f"{hint or f'; it takes {listed(map(_described, specs))}.'}"
        )
    return {spec.name: _array(values[spec.name], spec, path) for spec in specs}


def row_of_ones(specs: Sequence[TensorSpec]) -> Tensors:
    """Return an array for each of ``specs``, with 1 for each dimension that varies: of ones, or
    empty strings. Raises `BundleError` for one that is too large.
    """
    shapes = {spec.name: [abs(size) for size in spec.shape] for spec in specs}
    if sum(map(prod, shapes.values())) > LARGEST_ARRAYS // 8:
        raise BundleError("The inputs are too large for an example of ones.")
    return {
        spec.name: np.full(shapes[spec.name], "" if dtype.kind == "O" else 1, dtype)
        for spec in specs
        for dtype in (DTYPES[spec.datatype],)
    }


def _array(value: Any, spec: TensorSpec, path: Path) -> Array:
    """Return ``value`` as an array of ``spec``: no number is made of a string, and none rounded but
    to BF16, for which numpy has no array.
    """
    place, wanted = f"{path}: {shown(spec.name)}", DTYPES[spec.datatype]
    array = value if isinstance(value, np.ndarray) else _from_json(value, spec, place)
    is_string = array.dtype.kind in "UO"
    fits = array.dtype == wanted or np.can_cast(array.dtype, wanted, "safe")
    if is_string != (wanted.kind == "O") or not (is_string or fits):
        raise BundleError(f"{place} is {array.dtype}, and the model takes {_described(spec)}.")
    if not spec.accepts(array.shape):
        raise BundleError(
            f"{place} has the shape {list(array.shape)}, and the model takes {_described(spec)}."
        )
    return as_datatype(array, spec.datatype)


def _from_json(value: Any, spec: TensorSpec, place: str) -> Array:
    wanted = DTYPES[spec.datatype]
    kinds, words = _JSON_KINDS[wanted.kind]
    try:
        found: Array = np.array(value, dtype=object)
        # bool is an int to Python, and what is ragged stays a list.
        if not all(type(each) in kinds for each in found.reshape(-1)):
            raise ValueError(f"each value must be {words}")
        array = found.astype(wanted)  # null becomes NaN; an integer too large is an OverflowError
        if wanted.kind in "iu" and not (array == found).all():
            raise OverflowError("a value is beyond its datatype")
        return array
    except (ValueError, TypeError, OverflowError) as error:
        raise BundleError(
            f"{place} is no array of {_described(spec)}: {first_line(error)}."
        ) from error


def _described(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.datatype} {list(spec.shape)}"
