"""A request that the worker rejects before the application has seen it."""

from __future__ import annotations

import json
from http import HTTPStatus


class Rejection(Exception):
    """A request that is not served: the status to answer with, and what is wrong and where."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = HTTPStatus(status)
        self.detail = detail
        self.retry_after = 1 if status == 503 else None
        """Seconds after which the same request may succeed; None if it never will."""

    @property
    def body(self) -> bytes:
        """The problem document (RFC 9457), as JSON."""
        document = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
        }
        return json.dumps(document).encode()
