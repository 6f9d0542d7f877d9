"""Images and texts in the body of a request, and the rows that a model's steps make of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import perf_counter

from ..model.errors import InvalidSamples, RunTooLong
from ..model.model import Model
from ..model.signature import Tensors
from ..model.steps.declaration import Sample
from ..protocols.native.forms import FORM, read_form
from ..protocols.native.media import Content, MediaBody
from ..protocols.native.media_types import ReadBody, parse_header
from .context import RequestContext

PART_BYTES = 16 << 20
"""The tensors of a batch are made, and run, in parts of at most so many bytes: what callers send is
much smaller."""


def read_samples(request: MediaBody, context: RequestContext, read_body: ReadBody) -> list[Sample]:
    """Return the samples in the body of a request.

    Raises what ``read_body`` and `MediaBody.samples` raise.
    """
    body = read_body(request.media_types)
    return request.samples(content_of(body, context.environ.get("CONTENT_TYPE", "")))


def encoded(model: Model, sample: Sample) -> Tensors:
    """Return the row that the steps of ``model`` make of a sample. Raises `InvalidSamples`."""
    assert model.steps is not None
    return model.steps.encode([sample])


def encoded_in_parts(
    model: Model, samples: Sequence[Sample], run_seconds: float
) -> Iterator[Tensors]:
    """Yield the rows of all samples, in their order, and those of none if there is none.

    The next part is asked for when one has run, and all of them together may take ``run_seconds``:
    one part more, at most, begins. Raises `ImagesTooLarge` before anything is decoded,
    `InvalidSamples`, and `RunTooLong`.
    """
    steps = model.steps
    assert steps is not None
    if not samples:
        yield steps.no_rows()
        return
    steps.check_together(samples)
    count = max(1, PART_BYTES // steps.bytes_of_row)
    latest = perf_counter() + run_seconds
    for first in range(0, len(samples), count):
        if perf_counter() > latest:
            raise RunTooLong(run_seconds)
        try:
            yield steps.encode(samples[first : first + count])
        except InvalidSamples as error:
            moved = [
                replace(fault, path=(first + int(fault.path[0]), *fault.path[1:]))
                for fault in error.faults
            ]
            raise type(error)(moved) from None


def content_of(body: bytes, content_type: str) -> Content:
    """Return what is in ``body``. Raises `MalformedBody` for a form that can't be read."""
    media_type, parameters = parse_header(content_type)
    fields = read_form(body, parameters.get("boundary", "")) if media_type == FORM else None
    return Content(media_type, body, parameters.get("charset", ""), fields)
