"""Problem documents (RFC 9457), the body of every error response."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from itertools import islice

import orjson

from ..model.errors import MAX_FAULTS, Fault
from .body import LONGEST_ECHO

PROBLEM_JSON = "application/problem+json"
_TYPE = "urn:lantern:problem:"


def problem_document(
    status: int,
    detail: str,
    *,
    path: str,
    request_id: str,
    kind: str = "",
    faults: Iterable[Fault] = (),
) -> bytes:
    """Return a problem document as JSON. Its type ends with ``kind``, by default the status's name.

    ``path`` and ``request_id`` are those of the request.
    """
    title = HTTPStatus(status).phrase
    document = {
        "type": _TYPE + (kind or title.lower().replace(" ", "-")),
        "title": title,
        "status": status,
        "detail": detail,
        "instance": path[:LONGEST_ECHO],
        "request_id": request_id,
        "errors": [
            {"pointer": json_pointer(fault.path), "detail": fault.detail}
            for fault in islice(faults, MAX_FAULTS)
        ],
    }
    # By the schema `PROBLEM`, but not dumped by it: most errors occur under the highest load.
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def json_pointer(path: Sequence[str | int]) -> str:
    """Return ``path`` as a JSON pointer (RFC 6901), whose parts are cut where they are too long."""
    return "".join(
        "/" + str(part)[:LONGEST_ECHO].replace("~", "~0").replace("/", "~1") for part in path
    )
