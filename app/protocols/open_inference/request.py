"""A request for inference: from the bytes of its body to named arrays.

The body is JSON, and after it the data of those tensors that are binary. Members that are not known
are ignored; what is known must be as the protocol says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.structs import replace

from ...documents.schema import SchemaError, explain
from ...model.signature import Tensors, TensorSpec
from .. import raw_json
from .binary_data import decode_binary, frame
from .datatypes import DATATYPES, MAX_RANK, Array, Datatype, count_values
from .errors import InvalidRequest, Path
from .json_data import decode_json

_MAX_OUTPUTS = 1000
_LONGEST_REMEMBERED = 4096
"""Bytes of JSON before binary data: longer ones are decoded again for each request."""
_NOTHING = Raw(b"null")
_NO_BYTES = memoryview(b"")
_Count = Annotated[int, Meta(ge=0)]
_NO_SHARED_MEMORY = "name shared memory, which is not supported; send the data in the body"


class InputParameters(Struct, gc=False):
    """The parameters of an input that are known."""

    binary_data_size: _Count | None = None
    shared_memory_region: Raw | UnsetType = UNSET


class _Input(Struct, gc=False):
    name: str
    shape: Annotated[list[_Count], Meta(max_length=MAX_RANK)]
    datatype: str
    parameters: InputParameters | None = None
    data: Raw = _NOTHING


class _OutputParameters(Struct, gc=False):
    binary_data: bool | None = None
    classification: Annotated[int, Meta(ge=1)] | None = None
    shared_memory_region: Raw | UnsetType = UNSET


class _Output(Struct, gc=False):
    name: str
    parameters: _OutputParameters | None = None


class _RequestParameters(Struct, gc=False):
    binary_data_output: bool | None = None
    sequence_id: int | str | None = None


class RequestMembers(Struct, kw_only=True, gc=False):
    """The members of a request beside its inputs."""

    id: str | None = None
    parameters: _RequestParameters | None = None
    outputs: Annotated[list[_Output], Meta(max_length=_MAX_OUTPUTS)] | None = None


class _Request(RequestMembers, kw_only=True, gc=False):
    inputs: list[_Input]


class _IndexRequest(Struct, gc=False):
    ready: bool | None = None


_Kind = TypeVar("_Kind")
_decode_request = msgspec.json.Decoder(_Request).decode
_decode_index_request = msgspec.json.Decoder(_IndexRequest).decode


class InputTensor(Struct, frozen=True):
    """A tensor of a request, at ``path`` of its JSON.

    ``size`` is the product of its ``shape``. The values are not decoded before `read`.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    size: int
    path: Path
    data: Raw | memoryview

    def read(self) -> Array:
        """Return the values, in binary as a view of the body. Raises `InvalidRequest`."""
        if isinstance(self.data, memoryview):
            return decode_binary(self.data, self.shape, self.size, self.datatype, self.path)
        path = (*self.path, "data")
        return decode_json(self.data, self.shape, self.size, self.datatype, path)


class RequestedOutput(Struct, frozen=True):
    """An output to return, in binary if ``is_binary``.

    If ``classes`` is not 0, it is that many classes with the largest values, instead of the values
    (Triton's classification extension).
    """

    name: str
    path: Path
    is_binary: bool = False
    classes: int = 0


class InferenceRequest(Struct, frozen=True):
    """The inputs for a model, and the outputs to return; all of them if none is listed.

    ``rows`` are there in the place of ``inputs`` where they are read already. ``is_binary`` is for
    outputs that are not listed.
    """

    inputs: tuple[InputTensor, ...] = ()
    outputs: tuple[RequestedOutput, ...] = ()
    id: str | None = None
    is_binary: bool = False
    rows: Tensors | None = None


class _Layout(Struct, frozen=True):
    """A request without its binary data, of which each input takes one of ``parts``, or None.

    They have ``binary_bytes`` in all.
    """

    request: InferenceRequest
    parts: Sequence[slice | None]
    binary_bytes: int

    def holding(self, binary: memoryview) -> InferenceRequest:
        """Return the request with its data. Raises `InvalidRequest`."""
        if self.binary_bytes != len(binary):
            raise InvalidRequest.at(
                ("inputs",),
                f"have a binary_data_size of {self.binary_bytes:,} bytes in all, and "
                f"{len(binary):,} bytes follow the JSON",
            )
        inputs = [
            tensor if part is None else replace(tensor, data=binary[part])
            for tensor, part in zip(self.request.inputs, self.parts, strict=True)
        ]
        return replace(self.request, inputs=tuple(inputs))


def decode_request(
    body: bytes, json_bytes: int | None, specs: Sequence[TensorSpec], max_inputs: int
) -> InferenceRequest:
    """Return the request that ``body`` holds, the first ``json_bytes`` of which are JSON; all, if
    it is None.

    If it is 0, the body is the data of the one input of a model, whose inputs ``specs`` describe,
    and the outputs are returned in binary, too. A request of more than ``max_inputs`` is not looked
    into. Raises `NotJson`, and `InvalidRequest`.
    """
    if json_bytes == 0:
        return InferenceRequest((_only_input(memoryview(body), specs),), is_binary=True)
    if json_bytes is not None and json_bytes > len(body):
        raise InvalidRequest.at(
            (),
            f"has {len(body):,} bytes, and Inference-Header-Content-Length says that "
            f"{json_bytes:,} are JSON",
        )
    if json_bytes is None:
        return _decode_json(body, max_inputs, has_binary=False).request
    decode = _decode_again if json_bytes <= _LONGEST_REMEMBERED else _decode_json
    return decode(body[:json_bytes], max_inputs, has_binary=True).holding(
        memoryview(body)[json_bytes:]
    )


def _decode_json(text: bytes, max_inputs: int, *, has_binary: bool) -> _Layout:
    """Return what the JSON of a request says, after which binary data may follow."""
    sent = _read(text, _Request, _decode_request)
    if len(sent.inputs) > max_inputs:
        raise InvalidRequest.at(
            ("inputs",), f"are {len(sent.inputs):,}, and at most {max_inputs:,} are looked at"
        )
    is_binary = wants_binary(sent)
    inputs, parts, binary_bytes = _tensors(sent.inputs, has_binary=has_binary)
    outputs = outputs_of(sent, is_binary=is_binary)
    return _Layout(InferenceRequest(inputs, outputs, sent.id, is_binary), parts, binary_bytes)


_decode_again = lru_cache(maxsize=64)(_decode_json)
"""For tensors in binary, of which most callers send the same JSON with each."""


def wants_ready_only(body: bytes) -> bool:
    """Return True if a request for the index of the repository is about what is ready alone.

    Its body may be empty. Raises `NotJson` and `InvalidRequest`.
    """
    return bool(body) and _read(body, _IndexRequest, _decode_index_request).ready is True


def _read(text: bytes, kind: type[_Kind], decode: Callable[[bytes], _Kind]) -> _Kind:
    try:
        if not text.isascii():
            text.decode()  # what is skipped is not looked into
        return decode(text)
    except msgspec.ValidationError as error:
        raise _invalid(explain(kind, error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raw_json.check(text)  # raises what is wrong with it, as elsewhere
        raise raw_json.NotJson(str(error)) from None


def wants_binary(sent: RequestMembers) -> bool:
    """Return True if the outputs are to be returned in binary, unless they say otherwise.

    Raises `InvalidRequest`.
    """
    if sent.parameters is None:
        return False
    if sent.parameters.sequence_id:  # 0 and "" are no sequence
        raise InvalidRequest.at(
            ("parameters", "sequence_id"),
            "names a sequence of requests, which is not supported; send the state as a tensor",
        )
    return bool(sent.parameters.binary_data_output)


def _tensors(
    inputs: Sequence[_Input], *, has_binary: bool
) -> tuple[tuple[InputTensor, ...], Sequence[slice | None], int]:
    """Return the tensors of ``inputs``, and what each takes of the binary data, and all of them."""
    _check_names("inputs", inputs)
    tensors = []
    parts: list[slice | None] = []
    end = 0
    for index, sent in enumerate(inputs):
        path = ("inputs", index)
        bytes_sent = _bytes_sent(sent, path, has_binary=has_binary)
        datatype = DATATYPES.get(sent.datatype)
        if datatype is None:
            raise InvalidRequest.at((*path, "datatype"), f"must be one of {', '.join(DATATYPES)}")
        size = count_values(sent.shape, datatype, (*path, "shape"))
        data = sent.data if bytes_sent is None else _NO_BYTES
        tensors.append(InputTensor(sent.name, datatype, tuple(sent.shape), size, path, data))
        if bytes_sent is None:
            parts.append(None)
        else:
            begin, end = end, end + bytes_sent
            parts.append(slice(begin, end))
    return tuple(tensors), parts, end


def _check_names(place: str, tensors: Sequence[_Input | _Output]) -> None:
    """Raise `InvalidRequest` where two of the ``tensors`` at ``place`` have the same name."""
    known: set[str] = set()
    for index, each in enumerate(tensors):
        if each.name in known:
            raise InvalidRequest.at((place, index, "name"), "is that of an earlier one, too")
        known.add(each.name)


def _bytes_sent(sent: _Input, path: Path, *, has_binary: bool) -> int | None:
    """Return how many bytes of binary data an input has; None if its data are in the JSON."""
    parameters = sent.parameters
    bytes_sent = None
    if parameters is not None:
        if parameters.shared_memory_region is not UNSET:
            raise InvalidRequest.at((*path, "parameters"), _NO_SHARED_MEMORY)
        bytes_sent = parameters.binary_data_size
    if bytes_sent is None:
        if raw_json.is_null(sent.data):
            raise InvalidRequest.at((*path, "data"), "is missing")
        return None
    if not raw_json.is_null(sent.data):
        raise InvalidRequest.at((*path, "data"), "must be left out where binary_data_size is given")
    if bytes_sent and not has_binary:
        raise InvalidRequest.at(
            (*path, "parameters", "binary_data_size"),
            "takes the header Inference-Header-Content-Length: how many bytes of the body are JSON",
        )
    return bytes_sent


def _only_input(data: memoryview, specs: Sequence[TensorSpec]) -> InputTensor:
    """Return the tensor that a body without JSON is."""
    if len(specs) != 1:
        raise InvalidRequest.at(
            (), f"must begin with JSON, because the model has {len(specs)} inputs"
        )
    (spec,) = specs
    datatype = DATATYPES[spec.datatype]
    if datatype.name == "BYTES" and spec.shape in ((1,), (-1, 1)):  # one string, without its length
        shape = (1,) * len(spec.shape)
        return InputTensor(spec.name, datatype, shape, 1, (), memoryview(frame(data)))
    varying = spec.shape.count(-1)
    row = count_values([max(each, 1) for each in spec.shape], datatype, ()) * datatype.itemsize
    if varying > 1 or not row:
        raise InvalidRequest.at((), f"must begin with JSON, which has the shape of {spec.name!r}")
    if varying and len(data) % row:
        raise InvalidRequest.at(
            (), f"has {len(data):,} bytes, and {spec.name!r} takes a multiple of {row:,}"
        )
    shape = tuple(len(data) // row if each == -1 else each for each in spec.shape)
    return InputTensor(spec.name, datatype, shape, prod(shape), (), data)


def outputs_of(sent: RequestMembers, *, is_binary: bool) -> tuple[RequestedOutput, ...]:
    """Return the outputs that are listed, in binary if they say so or don't say and ``is_binary``.

    Raises `InvalidRequest`.
    """
    if not sent.outputs:
        return ()
    _check_names("outputs", sent.outputs)
    requested = []
    for index, each in enumerate(sent.outputs):
        path = ("outputs", index)
        wants_binary, classes = is_binary, 0
        if each.parameters is not None:
            if each.parameters.shared_memory_region is not UNSET:
                raise InvalidRequest.at((*path, "parameters"), _NO_SHARED_MEMORY)
            if each.parameters.binary_data is not None:
                wants_binary = each.parameters.binary_data
            classes = each.parameters.classification or 0
        requested.append(RequestedOutput(each.name, path, wants_binary, classes))
    return tuple(requested)


def _invalid(error: SchemaError) -> InvalidRequest:
    if error.missing:
        return InvalidRequest.at(error.path, "is missing")
    sent = f", not {error.sent}" if error.sent else ""
    return InvalidRequest.at(error.path, f"must be {error.wanted}{sent}")
