"""Images and texts in the body of a request, and the rows that a model's steps make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from ..model.errors import InvalidSamples
from ..model.model import Model
from ..model.signature import Tensors, row_count
from ..model.steps.declaration import Sample
from ..protocols.native.media import FORM, Content, MalformedBody, MediaBody
from ..protocols.native.media_types import MediaTypes
from .context import RequestContext

_MAX_PARTS = 20_000


_PART_BYTES = 16 << 20
"""The tensors of a batch are made, and run, in parts of about so many bytes: what callers send is
much smaller."""


def read_samples(
    request: MediaBody, context: RequestContext, read_body: Callable[[MediaTypes], bytes]
) -> list[Sample]:
    """Return the samples in the body of a request.

    Raises what ``read_body`` and `MediaBody.samples` raise.
    """
    body = read_body(request.media_types)
    return request.samples(content_of(body, context.environ.get("CONTENT_TYPE", "")))


def encoded(model: Model, sample: Sample) -> Tensors:
    """Return the row that the steps of ``model`` make of a sample. Raises `InvalidSamples`."""
    assert model.steps is not None
    return model.steps.encode([sample])


def encoded_in_parts(model: Model, samples: Sequence[Sample]) -> Iterator[Tensors]:
    """Yield the rows of all samples, in their order, and those of none if there is none.

    Raises `InvalidSamples`, and `RowsTooLarge` for one that is too large alone.
    """
    steps = model.steps
    assert steps is not None
    if not samples:
        yield steps.no_rows()
    first, count = 0, 1  # one, to see how large a row is
    while first < len(samples):
        try:
            rows = steps.encode(samples[first : first + count])
        except InvalidSamples as error:
            moved = [
                replace(fault, path=(first + int(fault.path[0]), *fault.path[1:]))
                for fault in error.faults
            ]
            raise type(error)(moved) from None
        yield rows
        first += count
        of_one = sum(array.nbytes for array in rows.values()) / row_count(rows)
        count = max(1, int(_PART_BYTES / max(1, of_one)))


def content_of(body: bytes, content_type: str) -> Content:
    """Return what is in ``body``. Raises `MalformedBody` for a form that can't be read."""
    media_type, options = parse_options_header(content_type)
    fields = _fields(body, options.get("boundary", "")) if media_type == FORM else None
    return Content(media_type, body, options.get("charset", "utf-8"), fields)


def _fields(body: bytes, boundary: str) -> Mapping[str, Sequence[bytes]]:
    """Return the values of a form's fields, and the contents of its files, by their names.

    Not by werkzeug's parser of forms, which decodes what has no name of a file as text.
    """
    if not boundary:
        raise MalformedBody(f"The Content-Type {FORM} has no boundary.")
    decoder = MultipartDecoder(boundary.encode("latin-1", "replace"), max_parts=_MAX_PARTS)
    fields: dict[str, list[bytes]] = {}
    name, parts = "", bytearray()
    try:
        decoder.receive_data(body)
        decoder.receive_data(None)
        while not isinstance(event := decoder.next_event(), Epilogue | NeedData):
            if isinstance(event, Field | File):
                name, parts = event.name, bytearray()
            elif isinstance(event, Data):
                parts += event.data
                if not event.more_data:
                    fields.setdefault(name, []).append(bytes(parts))
    except (ValueError, HTTPException) as error:
        raise MalformedBody("The body is not a form with the boundary that is declared.") from error
    if isinstance(event, NeedData):
        raise MalformedBody("The form ends before its last boundary.")
    return fields
