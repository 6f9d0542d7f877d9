"""The guard in front of every route: authentication, authorization and rate limiting.

What a request requires depends on the rule of its route, as the application itself matches it, so
no spelling of a path gets around it. A route that doesn't declare its `Access` requires the scope
"admin".
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..version import MODULE
from .addresses import address_of, is_exposed, is_loopback
from .errors import CREATE_COMMAND, Forbidden, KeysUnavailable, TwoKeys, Unauthorized
from .header_names import API_KEY, AUTHORIZATION, environ_key
from .keys import ADMIN, Key, KeyFile, KeysError
from .rate import RateLimiter
from .rejection import RequestRejected

if TYPE_CHECKING:
    from ..settings import Settings

_API_KEY, _AUTHORIZATION = environ_key(API_KEY), environ_key(AUTHORIZATION)

OPEN = "open"
ANY_KEY = "any"


@dataclass(frozen=True, slots=True)
class Access:
    """The requirements of a route, if keys are required.

    ``scope`` is one of `app.access.keys`, `ANY_KEY` or `OPEN`; ``opened_by`` is the setting of
    ``[access]`` that makes the route `OPEN`. ``is_rate_limited`` is False for a route that
    ``limits.rate`` doesn't apply to.
    """

    scope: str = ANY_KEY
    opened_by: str = ""
    is_rate_limited: bool = True


class Guard:
    """Authenticates callers by their keys, authorizes them for a route, and limits their rate.

    ``keys_required`` and ``has_rate_limit`` are what it checks; ``is_idle`` is True if it checks
    nothing, and so need not be called. ``knows_sockets`` is True once `set_sockets` was called.
    """

    def __init__(self, settings: Settings) -> None:
        access = settings.access
        self._auth = access.auth
        self._file = KeyFile(access.keys_file)
        self.knows_sockets = False
        self._settings = access
        self.set_rules(())
        self._proxies = settings.server.proxies
        self._limiter = RateLimiter.from_settings(
            settings.limits.rate, settings.limits.rate_storage
        )
        self.has_rate_limit = self._limiter is not None
        self._set_exposed(not is_loopback(settings.server.host))

    def set_sockets(self, names: Iterable[object]) -> None:
        """Set where the server listens: ``names`` are those of its sockets (``getsockname``).

        In a worker this forgets the keys that its master read, which another user may have to read.
        """
        self.knows_sockets = True
        self._file = KeyFile(self._file.path)
        self._set_exposed(is_exposed(names))

    def infer_exposure(self, server_name: str) -> None:
        """Infer from a request's ``SERVER_NAME`` that the server is exposed.

        For servers that never call `set_sockets`: any but Gunicorn, and Gunicorn with another
        configuration.
        """
        if not self._is_exposed and not is_loopback(server_name):
            self._set_exposed(True)

    def _set_exposed(self, exposed: bool) -> None:
        self._is_exposed = exposed
        self.keys_required = self._auth == "keys" or (self._auth == "auto" and exposed)
        self.is_idle = not (self.keys_required or self.has_rate_limit)

    def warnings(self) -> list[str]:
        """Return the warnings for the start of the server."""
        if self._is_exposed and not self.keys_required:
            return [
                'access.auth is "none" and the server listens beyond loopback: anyone who can '
                "reach it can use it without a key."
            ]
        if self._proxies and not self.keys_required and self._auth == "auto":
            return [
                "server.proxies is set and the server listens on loopback only: anyone who can "
                'reach the proxy can use it without a key. Set access.auth to "keys" to require '
                "one."
            ]
        if self.keys_required:
            try:
                if not self._file.current():
                    return [
                        f"API keys are required, but {self._file.path} has none: only /health is "
                        f"served. Create one with `{shlex.quote(sys.executable)} -m {MODULE} key "
                        "create NAME`; no restart is needed. To serve without keys, for example "
                        "behind a proxy that authenticates, set LANTERN_ACCESS__AUTH=none."
                    ]
            except KeysError as error:
                return [f"API keys are required: {error}"]
        return []

    def set_rules(self, rules: Iterable[tuple[str, Access]]) -> None:
        """Set who may call what: the rules of the application's routes, each with its `Access`."""
        self._scopes = {"": ANY_KEY}  # nobody without a key learns which paths exist
        self._unlimited = set()
        for rule, access in rules:
            is_opened = access.opened_by and getattr(self._settings, access.opened_by)
            self._scopes[rule] = OPEN if is_opened else access.scope
            if not access.is_rate_limited:
                self._unlimited.add(rule)

    def required_scope(self, rule: str) -> str:
        """Return what a request for ``rule`` requires now: a scope, `ANY_KEY` or `OPEN`."""
        return self._scopes.get(rule, ADMIN) if self.keys_required else OPEN

    def is_rate_limited(self, rule: str) -> bool:
        """Return True if ``limits.rate`` applies to requests for ``rule``."""
        return rule not in self._unlimited

    def authorize(self, environ: Mapping[str, Any], rule: str) -> str | None:
        """Return the caller of a request for ``rule``, None if the route takes no key.

        Raises `RequestRejected`. Requests without a valid key count towards the rate of their
        address.
        """
        limiter = self._limiter if self.is_rate_limited(rule) else None
        scope = self.required_scope(rule)
        if scope == OPEN:
            self._limit_address(environ, limiter)
            return None
        key = self._authenticate(environ, limiter)
        caller = f"{key.name}/{key.id}"
        try:
            if limiter is not None:
                limiter.hit(f"key:{key.id}")
            if scope != ANY_KEY and not key.allows(scope):
                raise Forbidden(scope, key.scopes)
        except RequestRejected as rejection:
            rejection.caller = caller
            raise
        return caller

    def _authenticate(self, environ: Mapping[str, Any], limiter: RateLimiter | None) -> Key:
        try:
            return self._key_of(environ)
        except (Unauthorized, TwoKeys, KeysUnavailable):
            self._limit_address(environ, limiter)
            raise

    def _key_of(self, environ: Mapping[str, Any]) -> Key:
        text = credentials(environ)
        try:
            if text:
                key = self._file.find(text)
                if key is None:
                    raise Unauthorized("The API key is unknown or was revoked.", "invalid_token")
                if key.has_expired:
                    raise Unauthorized(
                        f"The API key expired at {key.expires_at:%Y-%m-%dT%H:%M:%SZ}.",
                        "invalid_token",
                    )
                return key
            has_none = not self._file.current()
        except KeysError:
            raise KeysUnavailable from None
        hint = (
            f" The server has none yet; create one there with `{CREATE_COMMAND}`."
            if has_none
            else ""
        )
        raise Unauthorized(
            f"An API key is required: send it as {AUTHORIZATION}: Bearer KEY, "
            f"or as {API_KEY}.{hint}"
        )

    def _limit_address(self, environ: Mapping[str, Any], limiter: RateLimiter | None) -> None:
        if limiter is not None:
            limiter.hit(f"address:{address_of(environ, self._proxies)}")


def credentials(environ: Mapping[str, Any]) -> str:
    """Return the key that a request was sent with, as it is written; empty if there is none.

    Other schemes of Authorization are left to proxies. Raises `TwoKeys`.
    """
    scheme, _, token = environ.get(_AUTHORIZATION, "").partition(" ")
    # The spaces of HTTP alone, which `str.strip` has more of: what else is sent belongs to the key.
    bearer: str = token.strip(" \t") if scheme.lower() == "bearer" else ""
    other: str = environ.get(_API_KEY, "").strip(" \t")
    if bearer and other and bearer != other:
        raise TwoKeys
    return bearer or other
