"""Golden requests: whole requests with the answers that a handler gave when it was packed.

They stand in a file of the bundle, as JSON::

    {"requests": [{"body": "<base64>", "content_type": "image/png", "parameters": {},
                   "status": 200, "answer": {"zero": 0.99}, "answer_type": "application/json"}]}

An answer that is not JSON is ``answer_body``, in base64.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
from msgspec import UNSET, Meta, Struct, UnsetType, to_builtins

from ...documents.schema import SchemaError, read_as
from ..errors import BundleError, ModelError, shown
from ..manifest import Manifest, Tolerance
from .answers import JSON
from .errors import HandlerFailed, HandlerRefusal
from .handler import Handler, Run
from .request import HandlerRequest

LARGEST_FILE = 256 << 20
MAX_REQUESTS = 1000
NUMBERS = Tolerance(relative=1e-4, absolute=1e-5)
"""The least distance that a number of an answer may have from the golden one."""
_DEEPEST = 100


class GoldenRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A request, and how it was answered: bodies are in base64.

    ``answer`` is one in JSON, ``answer_body`` any other. A refusal has its message in ``answer``.
    """

    body: str
    content_type: str = ""
    parameters: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    field: str = "body"
    status: Annotated[int, Meta(ge=100, le=599)] = 200
    answer_type: str = JSON
    answer: Any = UNSET
    answer_body: str | UnsetType = UNSET

    @property
    def request(self) -> HandlerRequest:
        """The request as a handler gets it. Raises `BundleError`."""
        body = _decoded(self.body)
        return HandlerRequest(body, self.content_type, self.headers, self.parameters, self.field)

    @property
    def is_form(self) -> bool:
        """True if it was a field of a form."""
        return self.field != "body"


class _File(Struct, forbid_unknown_fields=True):
    requests: Annotated[
        tuple[GoldenRequest, ...],
        Meta(max_length=MAX_REQUESTS, description=f"an array of at most {MAX_REQUESTS}"),
    ]


def read_golden_requests(path: Path) -> tuple[GoldenRequest, ...]:
    """Read the golden requests of a bundle. Raises `BundleError`."""
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise BundleError(
                f"{path} has {size:,} bytes, which exceeds the limit of {LARGEST_FILE:,}: record "
                "fewer requests."
            )
        document = orjson.loads(path.read_bytes())
        read = read_as(_File, document)
        for each in read.requests:
            each.request  # noqa: B018 - it must be base64
        return read.requests
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    except orjson.JSONDecodeError as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    except SchemaError as error:
        raise BundleError(f"{path}: {error}") from None


def write_golden_requests(requests: Sequence[GoldenRequest], path: Path) -> None:
    """Write ``requests`` to ``path``; `read_golden_requests` returns the same."""
    document = {"requests": [to_builtins(each) for each in requests]}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")


def answered(handler: Handler, request: HandlerRequest, run: Run) -> GoldenRequest:
    """Return ``request`` as a golden one, with the answer that it gets now.

    Raises `BundleError` if the handler or the network fails on it.
    """
    status, content_type, body = _outcome(handler, request, run)
    answer: dict[str, Any] = {"answer_body": base64.b64encode(body).decode()}
    if content_type == JSON:
        answer = {"answer": orjson.loads(body)}
    return GoldenRequest(
        body=base64.b64encode(request.body).decode(),
        content_type=request.content_type,
        parameters=request.parameters,
        headers=dict(request.headers),
        field=request.field,
        status=status,
        answer_type=content_type,
        **answer,
    )


def check_requests(
    requests: Sequence[GoldenRequest], handler: Handler, run: Run, manifest: Manifest
) -> None:
    """Raise `BundleError` unless each of the golden requests is answered as it was."""
    tolerance = _tolerance(manifest)
    for index, wanted in enumerate(requests):
        status, content_type, body = _outcome(handler, wanted.request, run)
        fault = ""
        if (status, content_type) != (wanted.status, wanted.answer_type):
            fault = (
                f"it is {status} of type {shown(content_type)}, and was {wanted.status} of type "
                f"{shown(wanted.answer_type)}"
            )
        elif wanted.answer is UNSET:
            fault = "" if body == _decoded(wanted.answer_body or "") else "other bytes"
        else:
            fault = next(_differences(orjson.loads(body), wanted.answer, tolerance), "")
        if fault:
            raise BundleError(
                f"The answer to golden request {index} differs from that when the model was "
                f"packed: {fault}. So this model can't be served."
            )


def _outcome(handler: Handler, request: HandlerRequest, run: Run) -> tuple[int, str, bytes]:
    """Return the status, media type and body with which a request is answered."""
    try:
        (answer,) = handler.answer([request], run)
    except HandlerRefusal as error:
        return error.status, JSON, orjson.dumps(str(error))
    except HandlerFailed as error:
        raise BundleError(f"The handler failed on a golden request: {error.reason}.") from error
    except ModelError as error:
        raise BundleError(f"A golden request is not answered: {error}") from error
    return answer.status, answer.content_type, answer.body


def _tolerance(manifest: Manifest) -> Tolerance:
    """Return the tolerance of the numbers in answers: the widest of the outputs'."""
    each = [NUMBERS, *(manifest.tolerance(spec.name) for spec in manifest.outputs)]
    return Tolerance(max(t.relative for t in each), max(t.absolute for t in each))


def _differences(
    found: Any, wanted: Any, allowed: Tolerance, place: str = "", depth: int = 0
) -> Iterator[str]:
    """Yield where two JSON values differ, in words."""
    at = f"at {place[:200]} " if place else ""
    if depth > _DEEPEST:
        yield f"{at}it is nested too deeply"
    elif _is_number(found) and _is_number(wanted):
        distance = abs(found - wanted)
        if not distance <= allowed.absolute + allowed.relative * abs(wanted):
            yield f"{at}it is {found:.9g}, and was {wanted:.9g}"
    elif isinstance(found, dict) and isinstance(wanted, dict):
        if found.keys() != wanted.keys():
            yield f"{at}it has other members"
            return
        for key in wanted:
            yield from _differences(found[key], wanted[key], allowed, f"{place}/{key}", depth + 1)
    elif isinstance(found, list) and isinstance(wanted, list):
        if len(found) != len(wanted):
            yield f"{at}it has {len(found)} items, and had {len(wanted)}"
            return
        for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
            yield from _differences(one, other, allowed, f"{place}/{index}", depth + 1)
    elif found != wanted or isinstance(found, bool) != isinstance(wanted, bool):
        yield f"{at}it is {shown(found)}, and was {shown(wanted)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BundleError(f"A golden request is not base64: {error}.") from error
