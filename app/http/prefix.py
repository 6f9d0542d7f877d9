"""The path prefix under which clients see the service, taken off the path of each request.

There are two ways to have one. ``server.prefix`` is what paths begin with when they arrive. A proxy
that strips a prefix itself says so in X-Forwarded-Prefix. Behind this module, ``SCRIPT_NAME`` holds
the whole prefix, from which Flask makes every link, and ``PATH_INFO`` the path by which a request
is routed, let in and counted.
"""

from __future__ import annotations

from typing import Any

from ..access.header_names import FORWARDED_PREFIX, environ_key
from ..access.rejection import RequestRejected
from ..settings.forms import parse_prefix

_FORWARDED = environ_key(FORWARDED_PREFIX)
_SPLIT = "lantern.prefix"
"""In the environ of a request whose path is split already."""


class OutsidePrefix(RequestRejected):
    """A path that doesn't begin with the prefix of this service."""

    status = 404

    def __init__(self, prefix: str) -> None:
        super().__init__(f"Every path of this service begins with {prefix}/ (server.prefix).")


class BadPrefix(RequestRejected):
    """A proxy that is trusted says a prefix that is none."""

    def __init__(self, fault: ValueError) -> None:
        super().__init__(f"{FORWARDED_PREFIX} {fault}.")


class PathPrefix:
    """Splits the prefix from the paths of requests.

    ``prefix`` is what paths begin with when they arrive. ``proxies`` is how many proxies in front
    are trusted, as for X-Forwarded-For.
    """

    def __init__(self, prefix: str, proxies: int) -> None:
        self._prefix = prefix
        self._proxies = proxies

    def split(self, environ: dict[str, Any]) -> RequestRejected | None:
        """Split the path of a request into ``SCRIPT_NAME`` and ``PATH_INFO``, once.

        Returns why the request is not for this service, or None. It is not raised, because only
        callers who are let in learn what there is.
        """
        if _SPLIT in environ:
            return None
        mounted = environ.get("SCRIPT_NAME", "")  # by the server, which may have split at any byte
        prefix = self._prefix or mounted.rstrip("/")
        if prefix:
            path = mounted + environ.get("PATH_INFO", "")
            rest = path.removeprefix(prefix)
            if not path.startswith(prefix) or rest[:1] not in ("", "/"):
                return OutsidePrefix(prefix)
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = prefix, rest or "/"
        if self._proxies and _FORWARDED in environ:
            try:
                environ["SCRIPT_NAME"] = self._stripped(environ[_FORWARDED]) + prefix
            except ValueError as fault:
                return BadPrefix(fault)
        environ[_SPLIT] = True
        return None

    def _stripped(self, forwarded: str) -> str:
        """Return what our own proxies have stripped, one after another.

        Each that strips appends what it does, and others append nothing: so of the entries from the
        right at most as many as there are proxies are theirs, and clients see all of these, the
        outermost first. What stands before them, the caller made up. Raises `ValueError`.
        """
        entries = forwarded.split(",")[-self._proxies :]
        return "".join(parse_prefix(entry.strip(" \t")) for entry in entries)
