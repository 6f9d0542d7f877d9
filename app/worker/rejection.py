"""A request that the worker rejects before the application has seen it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

_LONGEST_QUOTE = 80


class Rejection(Exception):
    """A request that is not served: the status of the response, and what is wrong and where.

    ``setting`` is the one that changes a limit which was exceeded, and stands in parentheses in
    ``detail``.
    """

    def __init__(self, status: int, detail: str, setting: str = "") -> None:
        super().__init__(detail)
        self.status = HTTPStatus(status)
        self.detail = detail
        self.setting = setting
        self.retry_after = 1 if status == 503 else None
        """Seconds after which the same request may succeed; None if it can't."""

    def rename_setting(self, names: Mapping[str, str]) -> None:
        """Replace the name of the setting by that in ``names``, if it has one there."""
        if self.setting in names:
            self.detail = self.detail.replace(f"({self.setting})", f"({names[self.setting]})")

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


def body_too_large(limit: int, size: int | None = None) -> Rejection:
    """Return the rejection of a body of ``size`` bytes (None if unknown) above ``limit``."""
    body = "The body" if size is None else f"The body of {readable_number(size)} bytes"
    return Rejection(
        413, f"{body} exceeds the limit of {limit:,} bytes (max_body_bytes).", "max_body_bytes"
    )


def line_too_long(limit: int, size: int | None = None) -> Rejection:
    """Return the rejection of a request line of ``size`` bytes (None if unknown)."""
    line = "The request line" if size is None else f"The request line of {size:,} bytes"
    return Rejection(
        414,
        f"{line} exceeds the limit of {limit:,} bytes (limit_request_line).",
        "limit_request_line",
    )


def readable_number(number: int) -> str:
    """Return ``number`` with commas; only its magnitude if a client made up hundreds of digits."""
    return f"{number:,}" if number < 10**18 else "more than 10^18"


def quote(text: str) -> str:
    """Return the text of a client quoted, and cut if it is long."""
    return ascii(text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "...")
