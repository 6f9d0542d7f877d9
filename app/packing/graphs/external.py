"""External data of ONNX graphs: weights in files beside the graph, wherever it names them.

A graph may name a file in any tensor: an initialiser, the attribute of a node, a sparse tensor, a
function. Those of dense tensors are read, from files beside the graph; afterwards no tensor names a
file, so that nothing reads another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from ...model.errors import BundleError, first_line, shown

_NUMBERS = ("offset", "length")


def take_in_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Load the external tensors of ``model``, which was read from ``path``.

    Raises `BundleError` for a sparse tensor, and unless the file is a regular one beside ``path``.
    """
    places = (path.parent.resolve(), path.resolve().parent)
    for tensor, is_sparse in _tensors(model, is_sparse=False):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        if is_sparse:
            raise BundleError(
                f"{path} has a sparse tensor whose values are in another file, which is not read. "
                "Export it with dense weights, or with all values in the graph itself."
            )
        try:
            tensor.raw_data = _read(tensor, path.parent, places)
        except (OSError, ValueError) as error:
            raise BundleError(
                f"{path} can't be read as ONNX: its tensor {shown(tensor.name)} is not in a file "
                f"beside it ({first_line(error)}). Copy the graph together with its weights, into "
                "one directory."
            ) from error
        tensor.ClearField("external_data")
        tensor.data_location = TensorProto.DEFAULT


def _tensors(message: Any, *, is_sparse: bool) -> Iterator[tuple[TensorProto, bool]]:
    """Yield every tensor in ``message``, at any depth, and True if it is part of a sparse one."""
    waiting = [(message, is_sparse)]
    while waiting:
        message, is_sparse = waiting.pop()
        if isinstance(message, TensorProto):
            yield message, is_sparse
            continue
        inside = is_sparse or isinstance(message, onnx.SparseTensorProto)
        for field, value in message.ListFields():
            if field.message_type is not None:
                several = field.is_repeated
                waiting += [(part, inside) for part in (value if several else [value])]


def _read(tensor: TensorProto, directory: Path, places: Sequence[Path]) -> bytes:
    """Return the bytes of ``tensor``, whose file is relative to ``directory`` and lies in one of
    ``places``. Raises OSError and ValueError.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file = (directory / location).resolve()
    inside = any(file.is_relative_to(place) for place in places)
    if not location or not inside or not file.is_file():
        raise ValueError(f"{location[:80]!r} does not exist, or lies elsewhere")
    offset, length = (_number(entries.get(key)) for key in _NUMBERS)
    size = file.stat().st_size
    if (offset or 0) + (length or 0) > size:
        raise ValueError(f"{location[:80]!r} has {size:,} bytes, fewer than the tensor needs")
    with file.open("rb") as stream:
        stream.seek(offset or 0)
        content: bytes = stream.read() if length is None else stream.read(length)
        return content


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise ValueError(f"{text[:20]!r} is not a number of bytes")
    return int(text)
