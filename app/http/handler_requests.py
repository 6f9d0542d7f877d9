"""Requests to models with a handler: they go in whole, and what it answers comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import orjson
from msgspec import Raw

from ..model.code.answers import TEXT, HandlerAnswer
from ..model.code.request import HandlerRequest
from ..model.errors import BatchTooLarge
from ..model.model import Model
from ..protocols import raw_json
from ..protocols.native.forms import FORM, MalformedBody
from ..protocols.native.media import WHOLE_SAMPLE, only_part
from ..protocols.native.media_types import ANYTHING, JSON, MediaTypes, ReadBody
from ..protocols.native.sample_schemas import SAMPLES, elements_schema
from .content import content_of
from .context import RequestContext

_HEADER = "HTTP_"
_OF_MANY = MediaTypes((FORM, JSON))


class OtherStatus(Exception):
    """A handler answers with another status than 200."""

    def __init__(self, answer: HandlerAnswer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def answer(model: Model, context: RequestContext, read_body: ReadBody) -> HandlerAnswer:
    """Return what the handler of ``model`` answers to the current request.

    Raises what ``read_body`` and `Model.answer` raise, `MalformedBody`, and `OtherStatus`.
    """
    found = [*_requests(context.environ, read_body(ANYTHING))]
    (answered,) = model.answer([only_part(found)])
    if answered.status != HTTPStatus.OK:
        raise OtherStatus(answered)
    return answered


def answer_batch(
    model: Model, context: RequestContext, read_body: ReadBody, max_samples: int
) -> list[HandlerAnswer]:
    """Return what the handler answers to each of the samples in the current request.

    A sample is an element of ``samples`` in JSON, or a field of a form. Raises as `answer` does,
    `NotJson`, `ValidationError` and `BatchTooLarge`.
    """
    environ, body = context.environ, read_body(_OF_MANY)
    found = [*_requests(environ, body)]
    if not found:
        raise MalformedBody(f"The form has no field {' or '.join(WHOLE_SAMPLE)}.")
    if found[0].body is body:
        headers, parameters = found[0].headers, found[0].parameters
        samples = elements_schema(max_samples).load_json(body)[SAMPLES]
        found = [HandlerRequest(*_content(each), headers, parameters) for each in samples]
    if len(found) > max_samples:
        raise BatchTooLarge(len(found), max_samples)
    return model.answer(found) if found else []


def in_one_document(answers: Sequence[HandlerAnswer], version: str) -> bytes:
    """Return the JSON of the answers to many samples. What isn't JSON is a string in it.

    Raises `MalformedBody` for an answer that is neither JSON nor text.
    """
    predictions = [orjson.Fragment(_as_json(each)) for each in answers]
    document = {
        "predictions": predictions,
        "total_samples": len(answers),
        "model_version": version,
    }
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def _as_json(answer: HandlerAnswer) -> bytes:
    if answer.content_type == JSON:
        return answer.body
    try:
        return orjson.dumps(answer.body.decode())
    except UnicodeDecodeError:
        raise MalformedBody(
            f"The handler answers {answer.content_type}, of which JSON can't hold several: send "
            "each sample in a request of its own."
        ) from None


def _content(element: Raw) -> tuple[bytes, str]:
    """Return an element of JSON as a body, and its media type: a string is text."""
    if raw_json.is_text(element):
        return str(raw_json.text_or_outline(element)).encode(), TEXT
    return bytes(element), JSON


def _requests(environ: Mapping[str, Any], body: bytes) -> Iterator[HandlerRequest]:
    """Yield the body as a request or, of a form, each of its fields that is one."""
    content_type = environ.get("CONTENT_TYPE", "")
    headers = {
        name.removeprefix(_HEADER).replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith(_HEADER)
    }
    query = environ.get("QUERY_STRING", "")
    parameters = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
    fields = content_of(body, content_type).fields
    if fields is None:
        yield HandlerRequest(body, content_type, headers, parameters)
        return
    for name, values in fields.items():
        if name not in WHOLE_SAMPLE:
            parameters[name] = values[-1].body.decode(errors="replace")
    for name in WHOLE_SAMPLE:
        for part in fields.get(name, ()):
            yield HandlerRequest(part.body, part.content_type, headers, parameters, name)
