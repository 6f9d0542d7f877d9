"""Refusals: what the worker itself answers, without asking the application."""

from __future__ import annotations

import json
from http import HTTPStatus


class Refusal(Exception):
    """A request that is not served: the status to answer, and what is wrong and where."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = HTTPStatus(status)
        self.detail = detail
        self.retry_after = 1 if status == 503 else None
        """After how many seconds the same request may be served, where it may."""

    @property
    def body(self) -> bytes:
        """A problem document (RFC 9457) in JSON."""
        document = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
        }
        return json.dumps(document).encode()
