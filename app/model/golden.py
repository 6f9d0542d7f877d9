"""Golden data: inputs of a model with the outputs that it gave for them when it was packed.

They stand in the manifest of a classifier (format 1), or in a ``.npz`` beside it: an archive of
numpy's arrays, uncompressed, which is read without pickle. Nothing in the file is believed: what
it says of an array is compared with the signature and the bytes that there are.
"""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from msgspec import Struct
from numpy.lib import format as npy
from numpy.typing import NDArray

from .errors import BundleError, first_line, listed, shown
from .golden_samples import arrays_of, take_samples
from .signature import (
    DTYPES,
    FEATURES,
    PROBABILITIES,
    Array,
    Signature,
    Tensors,
    TensorSpec,
    row_at,
    row_count,
)
from .steps.declaration import Sample, Step

FILE_NAME = "golden.npz"
LARGEST_ARRAYS = 256 << 20
"""Bytes of the arrays in one file at most, once they are unpacked."""
_LARGEST_HEADER = 10_000
_LARGEST_OVERHEAD = 1 << 20
"""Bytes of a file at most that are not arrays: what says where they are, and their headers."""
_NOT_AN_ARCHIVE = (
    *(zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError),
    *(zlib.error, lzma.LZMAError),
)
"""The errors that readers of an archive and its arrays raise for other bytes."""
_NO_HEADER = (SyntaxError, TypeError, TokenError, MemoryError)
"""What numpy's reader of a header, a literal of Python, raises for other text; it says ValueError
for most.
"""
_KINDS = "biufU"
"""numpy's kinds of booleans, integers, floats and strings; no objects, which would be pickles."""


class Golden(Struct, frozen=True):
    """The arrays of one run, by the names of the inputs and outputs.

    ``samples`` are what the steps of a model made the inputs of, together; none where it has none.
    """

    inputs: Tensors
    outputs: Tensors
    samples: tuple[Sample, ...] = ()

    @classmethod
    def of_classifier(
        cls, samples: NDArray[np.float32], probabilities: NDArray[np.float32]
    ) -> Golden:
        """Return float32 samples ``(n, features)``, NaN for null, with their probabilities
        ``(n, classes)``.
        """
        return cls({FEATURES: samples}, {PROBABILITIES: probabilities})

    @property
    def rows(self) -> int:
        """The number of rows of the arrays, where they have rows."""
        return row_count(self.outputs)

    def row(self, index: int) -> Golden:
        """Return one row of it alone."""
        samples = self.samples[index : index + 1]
        return Golden(row_at(self.inputs, index), row_at(self.outputs, index), samples)


def read_golden(
    path: Path, signature: Signature, *, in_rows: bool = False, steps: tuple[Step, ...] = ()
) -> Golden:
    """Read the golden data of a model with ``signature``, whose ``steps`` made its inputs.

    With ``in_rows`` the first dimension of every tensor is rows. Raises `BundleError`.
    """
    arrays = read_arrays(path)
    samples = tuple(take_samples(arrays, steps, path)) if steps else ()
    members = dict(_members(signature))
    if arrays.keys() != members.keys():
        raise BundleError(
            f"{path} must hold {listed(members)}; it holds {listed(arrays)}. Pack the model again."
        )
    for member, spec in members.items():
        _check(arrays[member], spec, f"{path}: {member}")
    counts = {len(array) for array in arrays.values()} if in_rows else {1}
    counts |= {len(samples)} if steps else set()
    if len(counts) > 1 or 0 in counts:
        raise BundleError(
            f"{path} must hold one row or more, as many in each array; it holds "
            f"{' and '.join(map(str, sorted(counts)))}. Pack the model again."
        )
    return Golden(
        {spec.name: _in_memory(arrays[f"input_{i}"]) for i, spec in enumerate(signature.inputs)},
        {spec.name: _in_memory(arrays[f"output_{i}"]) for i, spec in enumerate(signature.outputs)},
        samples,
    )


def write_golden(golden: Golden, signature: Signature, path: Path) -> None:
    """Write ``golden`` to ``path``; `read_golden` returns the same."""
    arrays = {
        member: (golden.inputs if member.startswith("input_") else golden.outputs)[spec.name]
        for member, spec in _members(signature)
    }
    # Not under the names of the tensors, which need not be names of files.
    written: dict[str, Any] = {member: _as_written(array) for member, array in arrays.items()}
    written |= arrays_of(golden.samples)
    np.savez(path, **written)


def read_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays in a ``.npz`` by their names: booleans, numbers and strings.

    No memory is taken for more than `LARGEST_ARRAYS`. Raises `BundleError`.
    """
    try:
        written = path.stat().st_size  # an archive of nothing but names could be as large
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            size = max(
                sum(entry.file_size for entry in entries),
                written - _LARGEST_OVERHEAD,
            )
            if size > LARGEST_ARRAYS:
                raise BundleError(
                    f"{path} holds {size:,} bytes, and at most {LARGEST_ARRAYS:,} are read: use a "
                    "smaller example."
                )
            arrays: dict[str, Array] = {}
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                if name in arrays:
                    raise BundleError(f"{path} has two arrays called {shown(name)}.")
                with archive.open(entry) as file:
                    arrays[name] = _read_array(file, entry.file_size, f"{path}: {shown(name)}")
            return arrays
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror or error}.") from error
    except _NOT_AN_ARCHIVE as error:
        raise BundleError(
            f"{path} is not a .npz, as numpy.savez writes it: {first_line(error)}."
        ) from error


def _read_array(file: IO[bytes], size: int, place: str) -> Array:
    """Return the array in ``file``, which has ``size`` bytes."""
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        shape, in_columns, dtype = read_header(file, max_header_size=_LARGEST_HEADER)
    except _NO_HEADER as error:
        raise ValueError(f"it has no header: {first_line(error)}") from error
    if dtype.kind not in _KINDS or not dtype.itemsize:
        # How bfloat16 is written by the packages that add it to numpy.
        advice = " Save an array of bfloat16 as float32." if dtype == np.dtype("V2") else ""
        raise BundleError(
            f"{place} must be an array of booleans, numbers or strings "
            f"(numpy's str), not {str(dtype)[:40]}.{advice}"
        )
    if math.prod(shape) * dtype.itemsize > size:
        raise BundleError(f"{place} says that it is larger than its file: it was cut short.")
    flat = np.frombuffer(file.read(), dtype, count=math.prod(shape))
    return flat.reshape(shape, order="F" if in_columns else "C").copy(order="C")  # aligned


def _members(signature: Signature) -> Iterator[tuple[str, TensorSpec]]:
    """Yield the name in the file of each tensor."""
    kinds: Sequence[tuple[str, Sequence[TensorSpec]]] = (
        ("input", signature.inputs),
        ("output", signature.outputs),
    )
    for kind, specs in kinds:
        for index, spec in enumerate(specs):
            yield f"{kind}_{index}", spec


def _check(array: Array, spec: TensorSpec, place: str) -> None:
    wanted = DTYPES[spec.datatype]
    fits = array.dtype.kind == "U" if wanted.kind == "O" else array.dtype == wanted
    if not fits or not spec.accepts(array.shape):
        raise BundleError(
            f"{place} must be {spec.datatype} of shape {list(spec.shape)}, the tensor "
            f"{shown(spec.name)}; it is {array.dtype} of shape {list(array.shape)}."
        )


def _in_memory(array: Array) -> Array:
    return array.astype(object) if array.dtype.kind == "U" else array


def _as_written(array: Array) -> Array:
    return array.astype(np.str_) if array.dtype.kind == "O" else array


def same_strings(array: Array) -> bool:
    """Return True if an array of strings is the same once it is written and read again.

    numpy's strings end where nothing but null characters follows.
    """
    return bool((array.astype(np.str_).astype(object) == array).all())
