"""CORS (Fetch standard, section 3.2): which pages of other origins may call from a browser.

CORS authorizes nobody: it only lets a browser show a response to the page that requested it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .header_names import (
    API_KEY,
    AUTHORIZATION,
    FEATURE_WARNINGS,
    INFERENCE_HEADER_LENGTH,
    MODEL_VERSION,
    REQUEST_ID,
    REQUEST_TIMEOUT,
    RETRY_AFTER,
)

_EXPOSED = ", ".join((REQUEST_ID, FEATURE_WARNINGS, RETRY_AFTER))
_MAY_SEND = (
    *(AUTHORIZATION, "Content-Type", API_KEY),
    *(MODEL_VERSION, REQUEST_ID, REQUEST_TIMEOUT, INFERENCE_HEADER_LENGTH),
)
_SECONDS = 600

Headers = list[tuple[str, str]]


class Cors:
    """The CORS headers for the allowed ``origins``, of which "*" is any.

    Pages may also send ``routing_header``.
    """

    def __init__(self, origins: Iterable[str], routing_header: str) -> None:
        self._origins = frozenset(origins)
        self._is_open = "*" in self._origins
        self._may_send = ", ".join((*_MAY_SEND, routing_header))

    def is_preflight(self, environ: Mapping[str, Any]) -> bool:
        """Return True for the preflight request of a page whose origin is allowed."""
        return (
            environ.get("REQUEST_METHOD") == "OPTIONS"
            and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
            and self._allows(environ.get("HTTP_ORIGIN"))
        )

    def preflight_headers(self) -> Headers:
        """Return the headers of the response to a preflight request."""
        return [
            ("Access-Control-Allow-Methods", "GET, POST"),
            ("Access-Control-Allow-Headers", self._may_send),
            ("Access-Control-Max-Age", str(_SECONDS)),
        ]

    def marking(self, environ: Mapping[str, Any], start_response: Any) -> Callable[..., Any]:
        """Return a ``start_response`` that adds the CORS headers to the response."""
        origin = environ.get("HTTP_ORIGIN")
        more: Headers = [] if self._is_open else [("Vary", "Origin")]
        if self._allows(origin):
            more.append(("Access-Control-Allow-Origin", "*" if self._is_open else str(origin)))
            more.append(("Access-Control-Expose-Headers", _EXPOSED))

        def marked(status: str, headers: Headers, *exc_info: Any) -> Any:
            return start_response(status, [*headers, *more], *exc_info)

        return marked

    def _allows(self, origin: str | None) -> bool:
        return origin is not None and (self._is_open or origin in self._origins)
