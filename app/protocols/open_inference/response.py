"""A response of the protocol: from named arrays to the bytes of its body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from msgspec import Struct

from .binary_data import encode_binary
from .datatypes import ONLY_BINARY, Array, Datatype
from .errors import InvalidRequest, Path

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


class OutputTensor(Struct, frozen=True):
    """A tensor to return, in binary if ``is_binary``; ``path`` is its place in the request."""

    name: str
    datatype: Datatype
    array: Array
    is_binary: bool
    path: Path


class InferenceResponse(Struct, frozen=True):
    """The outputs of a model, in the order of the request."""

    model_name: str
    model_version: str
    id: str
    outputs: Sequence[OutputTensor]


def encode_response(response: InferenceResponse) -> tuple[bytes, int | None]:
    """Return the body of a response, and how many bytes of it are JSON; None if all are.

    Raises `InvalidRequest` for an output that JSON can't hold.
    """
    binary: list[bytes | memoryview] = []
    outputs = []
    for output in response.outputs:
        document: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype.name,
            "shape": output.array.shape,
        }
        if output.is_binary:
            binary.append(encode_binary(output.array, output.datatype))
            document["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            document["data"] = _json_data(output)
        outputs.append(document)
    text = orjson.dumps(
        {
            "model_name": response.model_name,
            "model_version": response.model_version,
            "id": response.id,
            "outputs": outputs,
        },
        option=_OPTIONS,
    )
    if not binary:
        return text, None
    return b"".join([text, *binary]), len(text)


def only_binary(name: str, path: Path) -> InvalidRequest:
    """Return the error for an output that JSON can't hold."""
    return InvalidRequest.at(path, f"can't be JSON: {name!r} is BF16; request it with binary_data")


def _json_data(output: OutputTensor) -> Any:
    """Return the values of an output as orjson writes them: flat, null for what is not finite."""
    if output.datatype.name in ONLY_BINARY:
        raise only_binary(output.name, output.path)
    flat = output.array.ravel()
    if output.datatype.name != "BYTES":
        return flat
    try:
        return [value.decode() for value in flat.tolist()]
    except UnicodeDecodeError:
        raise InvalidRequest.at(
            output.path, "has values that are not text; request it with binary_data"
        ) from None
