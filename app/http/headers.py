"""Headers by which browsers treat every answer with care.

Strict-Transport-Security is not among them: it binds a host name with all of its ports for months,
so it is for whoever owns the name, in the proxy that serves it.
"""

from __future__ import annotations

from ..access.cors import Headers

POLICY = "Content-Security-Policy"
_CACHE = "Cache-Control"

PLAIN: Headers = [("X-Content-Type-Options", "nosniff")]
"""What every answer has: JSON stays JSON, whatever a caller sent. Answers to POST have no more: no
cache keeps them that isn't told to (RFC 9110, section 9.3.3), no browser shows them as a page."""

FETCHED: Headers = [
    *PLAIN,
    (POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (_CACHE, "no-store"),
]
"""What an answer to GET has, if it is no page: a browser may show it as one. A shared cache knows
that what took Authorization is for one caller (RFC 9111, section 3.5), and not so of X-API-Key."""

PAGE: Headers = [
    *PLAIN,
    # Pages load their own files and talk to this service. Swagger UI has its icons in data: URLs.
    (
        POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    (_CACHE, "no-store"),
]
"""What an answer in HTML has."""


def headers_for(method: str, mimetype: str) -> Headers:
    """Return the headers of an answer of the type ``mimetype``."""
    if mimetype == "text/html":
        return PAGE
    return FETCHED if method in ("GET", "HEAD") else PLAIN
