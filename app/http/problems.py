"""Problem documents (RFC 9457), the body of every error response."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Any

import orjson

from ..model.errors import MAX_FAULTS, Fault
from ..protocols.native.media_types import JSON
from ..protocols.torchserve import error_document, is_torchserve
from .body import LONGEST_ECHO
from .context import RequestContext

PROBLEM_JSON = "application/problem+json"
_OPEN_INFERENCE = "v2"
_TYPE = "urn:lantern:problem:"


def is_open_inference(path: str) -> bool:
    """Return True if ``path``, without the prefix, is one of the Open Inference Protocol; slashes
    before it count as one.
    """
    return path.lstrip("/").partition("/")[0] == _OPEN_INFERENCE


def problem_type(path: str) -> str:
    """Return the media type of a problem at ``path``, without the prefix."""
    return JSON if is_open_inference(path) or is_torchserve(path) else PROBLEM_JSON


def problem_document(
    status: int,
    detail: str,
    *,
    context: RequestContext,
    kind: str = "",
    faults: Iterable[Fault] = (),
) -> tuple[bytes, str]:
    """Return a problem document as JSON, and its media type. Its own type ends with ``kind``, by
    default the status's name.

    For clients of the Open Inference Protocol it is also the error that they know, and for those
    of TorchServe it is that alone.
    """
    path = context.environ.get("PATH_INFO", "")
    if is_torchserve(path):
        return error_document(status, kind, detail), JSON
    title = _phrase(status)
    document: dict[str, Any] = {
        "type": _TYPE + (kind or title.lower().replace(" ", "-")),
        "title": title,
        "status": status,
        "detail": detail,
        "instance": context.head.path[:LONGEST_ECHO],
        "request_id": context.request_id,
        "errors": [
            {"pointer": json_pointer(fault.path), "detail": fault.detail}
            for fault in islice(faults, MAX_FAULTS)
        ],
    }
    media_type = problem_type(path)
    if media_type == JSON:
        document["error"] = detail
    # By the schema `PROBLEM`, but not dumped by it: most errors occur under the highest load.
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE), media_type


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # a handler may answer any from 400 to 599
        return "Error"


def json_pointer(path: Sequence[str | int]) -> str:
    """Return ``path`` as a JSON pointer (RFC 6901), with parts that are too long cut."""
    return "".join(
        "/" + str(part)[:LONGEST_ECHO].replace("~", "~0").replace("/", "~1") for part in path
    )
