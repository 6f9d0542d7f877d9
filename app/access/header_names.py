"""The headers that the API reads and sets, by their names: each is written here and nowhere else.

What the worker does with fields is HTTP's own affair; see `app.worker.head`.
"""

from __future__ import annotations

AUTHORIZATION = "Authorization"
API_KEY = "X-API-Key"
REQUEST_ID = "X-Request-ID"
REQUEST_TIMEOUT = "X-Request-Timeout-Ms"
MODEL_VERSION = "X-Model-Version"
FORWARDED_FOR = "X-Forwarded-For"
FORWARDED_PREFIX = "X-Forwarded-Prefix"

INFERENCE_HEADER_LENGTH = "Inference-Header-Content-Length"
FEATURE_WARNINGS = "X-Feature-Warnings"
RETRY_AFTER = "Retry-After"
AUTHENTICATE = "WWW-Authenticate"


def environ_key(name: str) -> str:
    """Return the key of the header ``name`` in a WSGI environ (PEP 3333)."""
    return "HTTP_" + name.upper().replace("-", "_")
