"""Headers by which browsers treat every answer with care.

Strict-Transport-Security is not among them: it binds a host name with all of its ports for months,
so it is for whoever owns the name, in the proxy that serves it.
"""

from __future__ import annotations

from app.access.cors import Headers

POLICY = "Content-Security-Policy"
_CACHE = "Cache-Control"

PLAIN: Headers = [
    # Nothing is taken for another type than it says: JSON stays JSON, whatever a caller sent.
    ("X-Content-Type-Options", "nosniff"),
    (POLICY, "default-src 'none'; frame-ancestors 'none'"),
]
"""What every answer has that is no page. Answers to POST have no more, for no cache keeps them that
isn't told to (RFC 9110, section 9.3.3)."""

UNCACHED: Headers = [*PLAIN, (_CACHE, "no-store")]
"""The same for what is asked by GET: a shared cache knows that what took Authorization is for one
caller (RFC 9111, section 3.5), and doesn't know it of X-API-Key."""

PAGE: Headers = [
    ("X-Content-Type-Options", "nosniff"),
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
    """Give the headers of an answer of the type ``mimetype``."""
    if mimetype == "text/html":
        return PAGE
    return UNCACHED if method in ("GET", "HEAD") else PLAIN
