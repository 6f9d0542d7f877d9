"""Why a request is not let in, and what its answer holds; `app.http.admission` gives it."""

from __future__ import annotations

from ..version import COMMAND
from .header_names import API_KEY, AUTHENTICATE, AUTHORIZATION, RETRY_AFTER
from .rejection import RequestRejected

REALM = 'Bearer realm="lantern"'
CREATE_COMMAND = f"{COMMAND} key create NAME"


class Unauthorized(RequestRejected):
    """No key was given, or one that doesn't count: ``error`` is then RFC 6750's word for it."""

    status = 401
    kind = "unauthorized"

    def __init__(self, detail: str, error: str = "") -> None:
        super().__init__(detail)
        challenge = f'{REALM}, error="{error}"' if error else REALM
        self.headers = ((AUTHENTICATE, challenge),)


class TwoKeys(RequestRejected):
    """Both headers hold a key, and not the same."""

    kind = "two-keys"
    headers = ((AUTHENTICATE, f'{REALM}, error="invalid_request"'),)

    def __init__(self) -> None:
        super().__init__(f"{AUTHORIZATION} and {API_KEY} hold different keys; send one of them.")


class Forbidden(RequestRejected):
    """The key counts, and not for this."""

    status = 403
    kind = "forbidden"

    def __init__(self, scope: str, scopes: tuple[str, ...]) -> None:
        has = ", ".join(scopes)
        super().__init__(f"The scope {scope} is required; this key has: {has}.")
        challenge = f'{REALM}, error="insufficient_scope", scope="{scope}"'
        self.headers = ((AUTHENTICATE, challenge),)


class KeysUnavailable(RequestRejected):
    """The file of keys can't be used, so nobody can be told from anybody."""

    status = 503
    kind = "keys-unavailable"
    headers = ((RETRY_AFTER, "5"),)

    def __init__(self) -> None:
        super().__init__("The server can't read its keys file, so no request is admitted.")


class RateLimited(RequestRejected):
    """The caller asks more often than it may; ``seconds`` is how long it has to wait."""

    status = 429
    kind = "rate-limited"
    reason = "rate"

    def __init__(self, rate: str, seconds: int) -> None:
        super().__init__(f"Rate limit of {rate} exceeded. Retry after {seconds} s.")
        self.headers = ((RETRY_AFTER, str(seconds)),)
