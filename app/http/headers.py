"""Security headers of responses.

Strict-Transport-Security is not among them: it binds a host name with all of its ports for months,
so it belongs in the proxy of the name's owner.
"""

from __future__ import annotations

from ..access.cors import Headers

POLICY = "Content-Security-Policy"
_CACHE = "Cache-Control"

PLAIN: Headers = [("X-Content-Type-Options", "nosniff")]
"""For every response. Those to POST have no more: caches don't store them by default (RFC 9110,
section 9.3.3), and browsers don't show them as a page."""

FETCHED: Headers = [
    *PLAIN,
    (POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (_CACHE, "no-store"),
]
"""For responses to GET that are not pages, because a browser may show them as one. They are not
cached: shared caches respect Authorization (RFC 9111, section 3.5), but not X-API-Key."""

PAGE: Headers = [
    *PLAIN,
    # Pages load their own files and call this service. Swagger UI has icons in data: URLs.
    (
        POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    (_CACHE, "no-store"),
]
"""For pages in HTML."""


def headers_for(method: str, mimetype: str) -> Headers:
    """Return the security headers of a response of the type ``mimetype``."""
    if mimetype == "text/html":
        return PAGE
    return FETCHED if method in ("GET", "HEAD") else PLAIN
