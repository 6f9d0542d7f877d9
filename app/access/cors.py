"""Pages of other origins: which of them may ask from a browser (CORS, Fetch standard, section 3.2).

Nothing here lets anybody in: an origin only lets a browser show its page what was answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .header_names import (
    API_KEY,
    AUTHORIZATION,
    FEATURE_WARNINGS,
    MODEL_VERSION,
    REQUEST_ID,
    REQUEST_TIMEOUT,
    RETRY_AFTER,
)

_EXPOSED = ", ".join((REQUEST_ID, FEATURE_WARNINGS, RETRY_AFTER))
_MAY_SEND = (AUTHORIZATION, "Content-Type", API_KEY, MODEL_VERSION, REQUEST_ID, REQUEST_TIMEOUT)
_SECONDS = 600

Headers = list[tuple[str, str]]


class Cors:
    """Answers for the ``origins`` that are listed, "*" being all of them.

    ``routing_header`` is the one that tells callers of a canary apart.
    """

    def __init__(self, origins: Iterable[str], routing_header: str) -> None:
        self._origins = frozenset(origins)
        self._is_open = "*" in self._origins
        self._may_send = ", ".join((*_MAY_SEND, routing_header))

    def is_preflight(self, environ: Mapping[str, Any]) -> bool:
        """Return whether a browser asks, for a page that is listed, whether it may ask."""
        return (
            environ.get("REQUEST_METHOD") == "OPTIONS"
            and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
            and self._allows(environ.get("HTTP_ORIGIN"))
        )

    def preflight_headers(self) -> Headers:
        """Return the headers by which a page learns what it may send."""
        return [
            ("Access-Control-Allow-Methods", "GET, POST"),
            ("Access-Control-Allow-Headers", self._may_send),
            ("Access-Control-Max-Age", str(_SECONDS)),
        ]

    def marking(self, environ: Mapping[str, Any], start_response: Any) -> Callable[..., Any]:
        """Return a ``start_response`` that marks the answer with who may see it."""
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
