"""The guard in front of everything: which key a request needs, and whether it is within its rate.

What is needed hangs on the rule of the route, as the application itself matches it, so no way of
writing a path leads past it. A route that doesn't declare its `Access` takes an admin's key.
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
from .rate import RateLimit
from .rejection import RequestRejected

if TYPE_CHECKING:
    from ..settings import Settings

_API_KEY, _AUTHORIZATION = environ_key(API_KEY), environ_key(AUTHORIZATION)

OPEN = "open"
ANY_KEY = "any"


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask for a route, where keys are required.

    ``needs`` is a scope, `ANY_KEY` or `OPEN`; ``opened_by`` is the setting of ``[access]`` that
    makes it `OPEN`. ``is_rated`` is False for what is not held to ``limits.rate``.
    """

    needs: str = ANY_KEY
    opened_by: str = ""
    is_rated: bool = True


class Guard:
    """Lets requests in, or raises why not.

    ``keys_required`` and ``has_rate`` tell what it looks at, and ``is_idle`` that it is neither, so
    that it need not be asked. ``is_told`` says whether it knows where the server listens.
    """

    def __init__(self, settings: Settings) -> None:
        access = settings.access
        self._auth = access.auth
        self._file = KeyFile(access.keys_file)
        self.is_told = False
        self._settings = access
        self.protect(())
        self._proxies = settings.server.proxies
        self._rate = RateLimit.of(settings.limits.rate, settings.limits.rate_storage)
        self.has_rate = self._rate is not None
        self._set_exposed(not is_loopback(settings.server.host))

    def listen_on(self, names: Iterable[object]) -> None:
        """Note where the server really listens: the names of its sockets.

        In a worker this forgets what its master read, which may be another user's to read.
        """
        self.is_told = True
        self._file = KeyFile(self._file.path)
        self._set_exposed(is_exposed(names))

    def meet(self, server_name: str) -> None:
        """Go by the name that a server gives itself, where nobody told: another than Gunicorn, or
        Gunicorn with another configuration.
        """
        if not self._is_exposed and not is_loopback(server_name):
            self._set_exposed(True)

    def _set_exposed(self, exposed: bool) -> None:
        self._is_exposed = exposed
        self.keys_required = self._auth == "keys" or (self._auth == "auto" and exposed)
        self.is_idle = not (self.keys_required or self.has_rate)

    def warnings(self) -> list[str]:
        """Say what whoever starts the server should know."""
        if self._is_exposed and not self.keys_required:
            return [
                'access.auth is "none", and the server listens on more than loopback: anybody who '
                "reaches it is served."
            ]
        if self._proxies and not self.keys_required and self._auth == "auto":
            return [
                "server.proxies says that a proxy stands in front, and the server listens on this "
                "machine alone: whoever reaches the proxy is served without a key, unless "
                'access.auth is "keys".'
            ]
        if self.keys_required:
            try:
                if not self._file.current():
                    return [
                        f"Keys are required and there is none in {self._file.path}: only /health "
                        f"is answered. `{shlex.quote(sys.executable)} -m {MODULE} key create NAME` "
                        "makes one, which counts at once. To do without keys, where something in "
                        "front decides who gets here, start it with LANTERN_ACCESS__AUTH=none."
                    ]
            except KeysError as error:
                return [f"Keys are required: {error}"]
        return []

    def protect(self, rules: Iterable[tuple[str, Access]]) -> None:
        """Note who may ask for what, by the rules of the application's routes."""
        self._needs = {"": ANY_KEY}  # nobody without a key learns what there is
        self._unrated = set()
        for rule, access in rules:
            is_opened = access.opened_by and getattr(self._settings, access.opened_by)
            self._needs[rule] = OPEN if is_opened else access.needs
            if not access.is_rated:
                self._unrated.add(rule)

    def need_of(self, rule: str) -> str:
        """Return what a request for ``rule`` needs now: a scope, `ANY_KEY` or `OPEN`."""
        return self._needs.get(rule, ADMIN) if self.keys_required else OPEN

    def counts(self, rule: str) -> bool:
        """Return True if requests for ``rule`` are held to the rate."""
        return rule not in self._unrated

    def admit(self, environ: Mapping[str, Any], rule: str) -> str | None:
        """Let in a request for ``rule``, and return whose it is, if it takes a key.

        Raises a `RequestRejected`. One without a key that counts is counted for its address.
        """
        if not self.counts(rule):
            return None
        need = self.need_of(rule)
        if need == OPEN:
            self._count_address(environ)
            return None
        key = self._key_of(environ)
        caller = f"{key.name}/{key.id}"
        try:
            self._count(f"key:{key.id}")
            if need != ANY_KEY and not key.allows(need):
                raise Forbidden(need, key.scopes)
        except RequestRejected as rejection:
            rejection.caller = caller
            raise
        return caller

    def _key_of(self, environ: Mapping[str, Any]) -> Key:
        try:
            return self._identify(environ)
        except (Unauthorized, TwoKeys, KeysUnavailable):
            self._count_address(environ)
            raise

    def _identify(self, environ: Mapping[str, Any]) -> Key:
        text = credentials(environ)
        try:
            if text:
                key = self._file.find(text)
                if key is None:
                    raise Unauthorized("The API key is unknown or was revoked.", "invalid_token")
                if key.has_expired:
                    raise Unauthorized(
                        f"The key expired at {key.expires_at:%Y-%m-%dT%H:%M:%SZ}.", "invalid_token"
                    )
                return key
            no_key = not self._file.current()
        except KeysError:
            raise KeysUnavailable from None
        hint = f" There is none yet: `{CREATE_COMMAND}` on the server makes one." if no_key else ""
        raise Unauthorized(
            f"An API key is required: send it as {AUTHORIZATION}: Bearer KEY, "
            f"or as {API_KEY}.{hint}"
        )

    def _count_address(self, environ: Mapping[str, Any]) -> None:
        if self._rate is not None:
            self._count(f"address:{address_of(environ, self._proxies)}")

    def _count(self, caller: str) -> None:
        if self._rate is not None:
            self._rate.take(caller)


def credentials(environ: Mapping[str, Any]) -> str:
    """Return the key that a request shows, as it is written; empty for none.

    Other schemes of Authorization are a proxy's affair. Raises `TwoKeys`.
    """
    scheme, _, token = environ.get(_AUTHORIZATION, "").partition(" ")
    # The spaces of HTTP alone, which `str.strip` has more of: what else is sent belongs to the key.
    bearer: str = token.strip(" \t") if scheme.lower() == "bearer" else ""
    other: str = environ.get(_API_KEY, "").strip(" \t")
    if bearer and other and bearer != other:
        raise TwoKeys
    return bearer or other
