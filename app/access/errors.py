"""Rejections of requests that are not authorized, or exceed their rate."""

from __future__ import annotations

from ..version import COMMAND
from .header_names import API_KEY, AUTHENTICATE, AUTHORIZATION, RETRY_AFTER
from .rejection import RequestRejected

REALM = 'Bearer realm="lantern"'
CREATE_COMMAND = f"{COMMAND} key create NAME"


class Unauthorized(RequestRejected):
    """No valid key was sent. ``error`` is the error code of RFC 6750 if one was sent at all."""

    status = 401
    kind = "unauthorized"

    def __init__(self, detail: str, error: str = "") -> None:
        super().__init__(detail)
        challenge = f'{REALM}, error="{error}"' if error else REALM
        self.headers = ((AUTHENTICATE, challenge),)


class TwoKeys(RequestRejected):
    """Both headers have a key, and the keys differ."""

    kind = "two-keys"
    headers = ((AUTHENTICATE, f'{REALM}, error="invalid_request"'),)

    def __init__(self) -> None:
        super().__init__(f"{AUTHORIZATION} and {API_KEY} have different keys; send only one.")


class Forbidden(RequestRejected):
    """The key is valid, but lacks the scope."""

    status = 403
    kind = "forbidden"

    def __init__(self, scope: str, scopes: tuple[str, ...]) -> None:
        has = ", ".join(scopes)
        super().__init__(f"The scope {scope} is required, but this API key has: {has}.")
        challenge = f'{REALM}, error="insufficient_scope", scope="{scope}"'
        self.headers = ((AUTHENTICATE, challenge),)


class KeysUnavailable(RequestRejected):
    """The file of keys can't be read, so no caller can be authenticated."""

    status = 503
    kind = "keys-unavailable"
    headers = ((RETRY_AFTER, "5"),)

    def __init__(self) -> None:
        super().__init__(
            "The server can't read its keys (access.keys_file), so every request is rejected."
        )


class RateLimited(RequestRejected):
    """The caller exceeds its rate; it has to wait for ``seconds``."""

    status = 429
    kind = "rate-limited"
    reason = "rate"

    def __init__(self, rate: str, seconds: int) -> None:
        super().__init__(
            f"The rate limit of {rate} is exceeded (limits.rate). Retry after {seconds} s."
        )
        self.headers = ((RETRY_AFTER, str(seconds)),)
