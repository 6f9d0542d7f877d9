"""The head of a request: its path, and what its caller wants, before anybody asks who sent it.

A worker whose clients repeat their heads offers a memory of each (see `app.worker.contract`), so
that a head is looked at once, and costs a lookup when it comes again.
"""

from __future__ import annotations

import re
from typing import Any

from ..access.header_names import MODEL_VERSION, REQUEST_ID, environ_key
from ..worker.contract import MEMORY
from .prefix import PathPrefix

_HEAD = "lantern.head"
_GIVEN_ID, _PINNED_VERSION = environ_key(REQUEST_ID), environ_key(MODEL_VERSION)
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class RequestHead:
    """The parts of a request's head that do not depend on its caller or on what is served.

    ``outside`` is the rejection of a path that is not below the prefix of this service. ``path`` is
    the client's, with the prefix, and ``split_path`` is ``SCRIPT_NAME`` and ``PATH_INFO`` where the
    server has split it at another place. ``request_id`` and ``version`` are those that the caller
    wants, None if it doesn't say. ``plain`` belongs to the fast path.
    """

    __slots__ = (
        "method",
        "outside",
        "path",
        "plain",
        "query",
        "request_id",
        "split_path",
        "version",
    )

    def __init__(self, environ: dict[str, Any], prefix: PathPrefix) -> None:
        self.method: str = environ["REQUEST_METHOD"]
        self.outside, self.split_path = prefix.split(environ)
        parts = self.split_path or (environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", ""))
        path = "".join(parts)
        if not path.isascii():  # WSGI has its bytes as latin-1 (PEP 3333)
            path = path.encode("latin-1", "replace").decode(errors="replace")
        self.path = path
        given = environ.get(_GIVEN_ID)
        # The id is written to logs and headers: one with other characters is replaced.
        self.request_id = given if given and _SANE_ID.fullmatch(given) else None
        self.version: str | None = environ.get(_PINNED_VERSION)
        self.query: str = environ.get("QUERY_STRING", "")
        self.plain: Any = None


def head_of(environ: dict[str, Any], prefix: PathPrefix) -> RequestHead:
    """Return the head of a request, whose path is then split as ``prefix`` says."""
    head: RequestHead | None = environ.get(_HEAD)
    if head is not None:
        return head
    memory = environ.get(MEMORY)
    head = memory.get(_HEAD) if memory is not None else None
    if head is None:
        head = RequestHead(environ, prefix)
        if memory is not None and head.outside is None:  # exceptions are not for two requests
            memory[_HEAD] = head
    environ[_HEAD] = head
    if head.split_path is not None:
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = head.split_path
    return head
