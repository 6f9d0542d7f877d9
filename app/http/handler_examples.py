"""Examples for a model with a handler, of its shortest golden request: whoever packed it sent that,
and the handler answers it.

Nothing else is known of what a handler takes.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import orjson
from msgspec import UNSET

from ..access.header_names import AUTHORIZATION
from ..model.code.golden import GoldenRequest
from ..model.model import LONGEST_SHOWN, Model
from ..protocols.native.forms import FORM
from ..protocols.native.media_types import ANY_TYPE, JSON, parse_header
from ..protocols.native.sample_schemas import SAMPLES

BINARY: Mapping[str, Any] = {"type": "string", "format": "binary"}
"""The schema of bytes in the OpenAPI document."""
WHOLE_FORM: Mapping[str, Any] = {
    "type": "object",
    "description": "The sample is in the field data, or body; the others are parameters.",
    "properties": {"data": BINARY},
    "required": ["data"],
}


@dataclass(frozen=True, slots=True)
class HandlerExample:
    """A request that the handler of a model answers, and its answer.

    ``text`` is the body, None where it is none that can be shown. ``answer`` is JSON or a text,
    None where it is neither or too long.
    """

    body: bytes
    content_type: str
    parameters: Mapping[str, str]
    text: str | None
    answer: Any
    answer_type: str

    @classmethod
    def of(cls, model: Model) -> HandlerExample | None:
        """Return the example of a model with a handler; None if it has none, or none so short."""
        golden = model.golden_request
        if golden is None:
            return None
        body = golden.request.body
        return cls(
            body,
            golden.content_type,
            golden.parameters,
            _text(body),
            _answer(golden),
            golden.answer_type,
        )

    @property
    def media_type(self) -> str:
        """The media type of the body; empty where none was sent."""
        return parse_header(self.content_type)[0]

    @property
    def sample(self) -> Any:
        """The body as a page shows it in a field: a JSON value or a text; None of other bytes."""
        if self.media_type != JSON:
            return self.text
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    def curl(self, url: str, *, with_key: bool = False) -> str:
        """Return a command that sends the request to ``url``; ``with_key`` with a caller's key."""
        query = f"?{urlencode(self.parameters)}" if self.parameters else ""
        headers = [f"Content-Type: {self.content_type}".strip()]
        if with_key:
            headers.append(f"{AUTHORIZATION}: Bearer KEY")
        parts = [f"curl {shlex.quote(url + query)}"]
        parts += [f"-H {shlex.quote(header)}" for header in headers]
        if self.text is not None:
            text = self.text.strip() if self.media_type == JSON else self.text
            parts.append(f"--data-raw {shlex.quote(text)}")
        else:
            parts[0] = f"echo {base64.b64encode(self.body).decode()} | base64 -d | {parts[0]}"
            parts.append("--data-binary @-")
        return " \\\n  ".join(parts)


def request_content(member: str, model: Model, largest: str) -> dict[str, Any]:
    """Return the content, by media types, of a request to a model with a handler: for one sample,
    or with the ``member`` "samples" for many. The first is the one to try.
    """
    example = HandlerExample.of(model)
    content = dict(_of_many(example, largest) if member == SAMPLES else _of_one(example))
    if example is None or example.sample is None:  # a page sends bytes as a file in a form
        return {FORM: content.pop(FORM), **content}
    return content


def answer_content(member: str, model: Model) -> dict[str, Any]:
    """Return the content of the answer of a model with a handler to such a request."""
    schema = {"description": "What the handler of the model answers."}
    example = HandlerExample.of(model)
    if example is None or example.answer is None:
        return {JSON: {"schema": schema}}
    if member != SAMPLES:
        return {JSON: {"schema": schema}} | {
            example.answer_type: {"schema": schema, "example": example.answer}
        }
    several = {
        "predictions": [example.answer] * 2,
        "total_samples": 2,
        "model_version": model.version,
    }
    return {JSON: {"schema": schema, "example": several}}


def _of_one(example: HandlerExample | None) -> Iterator[tuple[str, dict[str, Any]]]:
    if example is not None and example.media_type not in ("", FORM):
        if example.sample is None:
            yield example.media_type, {"schema": dict(BINARY)}
        else:
            schema = {} if example.media_type == JSON else {"type": "string"}
            yield example.media_type, {"schema": schema, "example": example.sample}
    yield FORM, {"schema": dict(WHOLE_FORM)}
    yield ANY_TYPE, {"schema": dict(BINARY)}


def _of_many(example: HandlerExample | None, largest: str) -> Iterator[tuple[str, dict[str, Any]]]:
    # Not as maxItems: a larger batch is valid by the schema, and its response is 413.
    samples = {"type": "array", "description": largest, "items": {}}
    in_json: dict[str, Any] = {"schema": _object({SAMPLES: samples})}
    sample = None if example is None else example.sample
    is_json = example is not None and example.media_type == JSON
    if sample is not None and isinstance(sample, str) != is_json:  # a string there is a text
        in_json["example"] = {SAMPLES: [sample] * 2}
    yield JSON, in_json
    files = {"type": "array", "items": dict(BINARY), "minItems": 1}
    yield FORM, {"schema": _object({"data": files})}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def _text(body: bytes) -> str | None:
    """Return a body as text, if it is one that a terminal and a page can show."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return text if all(each.isprintable() or each in "\n\t" for each in text) else None


def _answer(golden: GoldenRequest) -> Any:
    """Return the answer to show: JSON or text, None for others and for one that is too long."""
    if golden.status != HTTPStatus.OK:
        return None
    if golden.answer is not UNSET:
        return golden.answer if len(orjson.dumps(golden.answer)) <= LONGEST_SHOWN else None
    body = base64.b64decode(golden.answer_body or "")
    return _text(body) if len(body) <= LONGEST_SHOWN else None
