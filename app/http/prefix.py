"""The path prefix under which clients see the service, split from the path of each request.

There are two ways to have one: requests arrive with the prefix ``server.prefix``, or a proxy strips
a prefix and sends it in X-Forwarded-Prefix. ``SCRIPT_NAME`` becomes the whole prefix, which Flask
puts in front of every link, and ``PATH_INFO`` the path that is routed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..access.header_names import FORWARDED_PREFIX, environ_key
from ..access.rejection import RequestRejected
from ..settings.forms import parse_prefix

_FORWARDED = environ_key(FORWARDED_PREFIX)


class OutsidePrefix(RequestRejected):
    """The path doesn't begin with the prefix of this service."""

    status = 404

    def __init__(self, prefix: str) -> None:
        super().__init__(f"Not found: paths of this service begin with {prefix}/ (server.prefix).")


class BadPrefix(RequestRejected):
    """A trusted proxy sent a prefix that is not valid."""

    def __init__(self, fault: ValueError) -> None:
        super().__init__(f"{FORWARDED_PREFIX} {fault}.")


class PathPrefix:
    """Splits the prefix from the paths of requests.

    ``prefix`` is what paths begin with when they arrive. ``proxies`` is the number of trusted
    proxies, as for X-Forwarded-For.
    """

    def __init__(self, prefix: str, proxies: int) -> None:
        self._prefix = prefix
        self._proxies = proxies

    def split(
        self, environ: Mapping[str, Any]
    ) -> tuple[RequestRejected | None, tuple[str, str] | None]:
        """Return the rejection of a request that is not for this service, or None, and what its
        ``SCRIPT_NAME`` and ``PATH_INFO`` should be, None if the server has split its path so.

        The rejection is not raised, because only authorized callers may learn which paths exist.
        """
        parts: tuple[str, str] | None = None
        mounted = environ.get("SCRIPT_NAME", "")  # the server may have split at any byte
        prefix = self._prefix or mounted.rstrip("/")
        if prefix:
            path = mounted + environ.get("PATH_INFO", "")
            rest = path.removeprefix(prefix)
            if not path.startswith(prefix) or rest[:1] not in ("", "/"):
                return OutsidePrefix(prefix), None
            parts = prefix, rest or "/"
        if self._proxies and _FORWARDED in environ:
            try:
                forwarded = self._stripped(environ[_FORWARDED])
            except ValueError as fault:
                return BadPrefix(fault), parts
            parts = forwarded + prefix, parts[1] if parts else environ.get("PATH_INFO", "")
        return None, parts

    def _stripped(self, forwarded: str) -> str:
        """Return the prefixes that the trusted proxies have stripped, joined.

        A proxy that strips a prefix appends it, others append nothing: so at most the last
        ``proxies`` entries are theirs, the outermost first. A client may have forged those before.
        Raises `ValueError`.
        """
        entries = forwarded.split(",")[-self._proxies :]
        return "".join(parse_prefix(entry.strip(" \t")) for entry in entries)
