"""The one shape of every failure: a problem document (RFC 9457), whoever answers with it."""

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
    """Write a problem document in JSON; ``kind`` ends its type, the status's own name by default.

    ``path`` and ``request_id`` are the request's.
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
    # As `PROBLEM` describes it, and without its dump: there is most to refuse when there is most
    # to do.
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def json_pointer(path: Sequence[str | int]) -> str:
    """Write ``path`` as a JSON pointer (RFC 6901), a part too long to read being cut."""
    return "".join(
        "/" + str(part)[:LONGEST_ECHO].replace("~", "~0").replace("/", "~1") for part in path
    )
