"""The path prefix under which clients see the service, taken off the path of each request.

There are two ways to have one. ``server.prefix`` is what paths begin with when they arrive. A proxy
that strips a prefix itself says so in X-Forwarded-Prefix. Behind this module, ``SCRIPT_NAME`` holds
the whole prefix, from which Flask makes every link, and ``PATH_INFO`` the path by which a request
is routed, let in and counted.
"""

from __future__ import annotations

import re
from typing import Any

from ..access.rejection import RequestRejected

HEADER = "X-Forwarded-Prefix"
_VARIABLE = "HTTP_X_FORWARDED_PREFIX"
_SPLIT = "lantern.prefix"
"""In the environ of a request whose path is split already."""
_LONGEST = 200
# Nothing that a browser, a shell or HTML reads in another way, and no dot segments: it is written
# into pages and redirects. Percent-encoded characters could become any of that.
_PREFIX = re.compile(r"(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._~@:+=-]+)*")


class OutsidePrefix(RequestRejected):
    """A path that doesn't begin with the prefix of this service."""

    status = 404

    def __init__(self, prefix: str) -> None:
        super().__init__(f"Every path of this service begins with {prefix}/ (server.prefix).")


class BadPrefix(RequestRejected):
    """A proxy that is trusted says a prefix that is none."""

    def __init__(self, fault: ValueError) -> None:
        super().__init__(f"{HEADER} {fault}.")


def parse_prefix(text: str) -> str:
    """Return ``text`` as a prefix: empty for none, else without a slash at its end.

    Raises `ValueError`, whose message goes on from the name of what holds the prefix.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"has {len(text)} characters, at most {_LONGEST} are accepted")
    prefix = text.removesuffix("/")
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(
            f"{text!a} is not an absolute path such as '/lantern': segments of letters, digits and "
            "._~@:+=- behind one slash each, none of them '.' or '..'"
        )
    return prefix


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
        if self._proxies and _VARIABLE in environ:
            try:
                environ["SCRIPT_NAME"] = self._stripped(environ[_VARIABLE]) + prefix
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
