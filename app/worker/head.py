"""The head of a request: from its bytes to a WSGI environ.

The rules are those of RFC 9112 as Gunicorn interprets them, and never more lenient: whatever two
servers might parse differently is rejected. A head is parsed by splitting once it is complete. A
parser in C (llhttp, by httptools) takes as long because of its callbacks, has no limits, and
accepts what Gunicorn rejects (two Hosts, chunks in HTTP/1.0, underscores in names), so that most of
the checks would be needed anyway.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from typing import Any

from gunicorn.util import split_request_uri, unquote_to_wsgi_str

from .contract import MEMORY, UNREAD, DirectCall, Environ
from .framing import set_framing
from .rejection import Rejection, line_too_long, quote
from .request import Head, Request
from .target import authority, is_target, port_of

_TEXT = bytes([0x09, 0x0A, 0x0D, *range(0x20, 0x7F), *range(0x80, 0x100)])
"""The bytes allowed in a head; CR and LF only at the ends of lines."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_METHOD = re.compile(r"[!$%&'*+\-.^_`|~0-9A-Z]{3,20}")
_VERSION = re.compile(r"HTTP/1\.[0-9]")

_SINGLE = frozenset({"HTTP_HOST", "CONTENT_TYPE", "CONTENT_LENGTH"})
"""Headers whose repetition makes a request ambiguous."""

_FRAMING = frozenset({"HTTP_TRANSFER_ENCODING", "HTTP_CONNECTION", "HTTP_EXPECT", "HTTP_HOST"})
"""Headers that the worker interprets: a name with an underscore must not set them."""

_NOT_IN_TRAILER = frozenset(
    {"HOST", "CONTENT-LENGTH", "TRANSFER-ENCODING", "TRAILER", "AUTHORIZATION", "TE"}
)

_COMMON_NAMES = (
    *("Host", "User-Agent", "Accept", "Accept-Encoding", "Accept-Language", "Connection"),
    *("Content-Type", "Content-Length", "Authorization", "Cookie", "X-Request-Id", "Traceparent"),
    *("X-Request-ID", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP"),
)

_MAX_REMEMBERED = 512
_LONGEST_REMEMBERED = 128
_MAX_HEADS, _LONGEST_HEAD = 256, 512
"""Of whole heads, which clients repeat on a connection, with bodies of the same size."""


class HeadParser:
    """Parses the heads of requests, of peers that are ``trusted`` as proxies or not.

    Of those that come again, it asks ``find_direct`` as `KeepAliveWorker.find_direct` says.
    """

    def __init__(
        self,
        cfg: Any,
        find_direct: Callable[[Environ], DirectCall | None] = lambda environ: None,
        *,
        trusted: bool,
    ) -> None:
        self._cfg = cfg
        self._find_direct = find_direct
        self._forwarders: list[str] = cfg.forwarder_headers if trusted else []
        secure = cfg.secure_scheme_headers if trusted else {}
        self._schemes = {_key(name.upper()): value for name, value in secure.items()}
        self._script_name = os.environ.get("SCRIPT_NAME", "")
        # As Gunicorn interprets its settings: out of range means the default.
        most = cfg.limit_request_fields
        self.max_fields = most if 0 < most <= 32768 else 32768
        self.field_size = cfg.limit_request_field_size or 8190
        line = cfg.limit_request_line
        self.line_size = 8190 if line < 0 or line > 8190 else line  # 0 is unlimited
        self.head_size = (self.line_size or 1 << 20) + self.max_fields * (self.field_size + 2) + 4
        # Caches of what clients send repeatedly, bounded because they may send anything.
        self._heads: dict[bytes, Head] = {}
        self._keys = _COMMON_KEYS.copy()
        self._lines: dict[str, tuple[str, str, str, str, str]] = {}
        self._hosts: set[str] = set()

    def parse(self, head: bytes, template: Environ) -> Request:
        """Parse ``head``, which ends before its empty line; the request's environ extends a copy of
        ``template``.

        Raises `Rejection` (400, 414, 417, 431, 501, or 404 where the path lacks the prefix that is
        configured).
        """
        known = self._heads.get(head)
        if known is None:
            known = self._parse(head)
            if len(head) <= _LONGEST_HEAD:
                if len(self._heads) >= _MAX_HEADS:
                    self._heads.clear()
                self._heads[head] = known
        elif not known.is_repeated:  # many heads have an id, and come only once
            known.is_repeated = True
            known.environ[MEMORY] = {}
            if known.version != (1, 0):  # of which a response has another first line
                known.direct = self._find_direct(known.environ)
        return Request(known, template)

    def _parse(self, head: bytes) -> Head:
        text = head.decode("latin-1")
        lines = text.split("\r\n")
        count = len(lines) - 1
        if head.count(b"\n") != count or head.count(b"\r") != count or head.translate(None, _TEXT):
            raise _control_character(lines)
        self._check_sizes(head, lines)
        known = self._lines.get(lines[0])
        if known is None:
            known = self._request_line(lines[0])
        method, uri, path, query, protocol = known
        environ = {
            "REQUEST_METHOD": method,
            "RAW_URI": uri,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_PROTOCOL": protocol,
        }
        parsed = Head(environ, method, uri, path, query)
        repeated: dict[str, list[str]] = {}
        keys = self._keys
        del lines[0]
        for line in lines:
            name, colon, value = line.partition(":")
            key = keys.get(name) or self._key(name, value, environ)
            if not colon:
                raise Rejection(400, f"The header line {quote(line)} has no colon.")
            value = value.strip(" \t")
            if key in environ:
                if key in _SINGLE:
                    raise Rejection(400, f"The header {name} occurs more than once.")
                repeated.setdefault(key, [environ[key]]).append(value)
            else:
                environ[key] = value
        for key, values in repeated.items():
            environ[key] = ",".join(values)
        environ.pop(_DROPPED, None)
        if self._schemes:
            self._set_scheme(environ, repeated)
        self._set_host(environ, uri)
        prefix = environ.get("SCRIPT_NAME") or self._script_name
        if prefix:
            _split_script_name(environ, prefix)
        set_framing(parsed, protocol)
        return parsed

    def unread(self, template: Environ) -> Request:
        """Return a placeholder for a request whose head was not read completely."""
        environ = {
            "REQUEST_METHOD": UNREAD,
            "RAW_URI": "",
            "PATH_INFO": "/",
            "QUERY_STRING": "",
            "SERVER_PROTOCOL": "HTTP/1.1",
        }
        return Request(Head(environ, UNREAD, "", "/", ""), template)

    def check_trailers(self, section: bytes) -> None:
        """Raise `Rejection` if the trailer section of a chunked body is malformed or too large."""
        lines = section.decode("latin-1").split("\r\n")
        count = len(lines) - 1
        if section.count(b"\n") != count or section.count(b"\r") != count:
            raise _control_character(lines)
        if section.translate(None, _TEXT):
            raise _control_character(lines)
        self._check_sizes(section, ["", *lines])
        seen = set()
        for line in lines:
            name, colon, _ = line.partition(":")
            if not colon:
                raise Rejection(400, f"The trailer line {quote(line)} has no colon.")
            key = self._key(name, "", {})
            if name.upper() in _NOT_IN_TRAILER:
                raise Rejection(400, f"The field {name} is not allowed in trailers.")
            if key in _SINGLE and key in seen:
                raise Rejection(400, f"The trailer field {name} occurs more than once.")
            seen.add(key)

    def _check_sizes(self, head: bytes, lines: list[str]) -> None:
        if len(lines) - 1 > self.max_fields:
            raise Rejection(
                431,
                f"The request has {len(lines) - 1:,} header fields, which exceeds the limit of "
                f"{self.max_fields:,} (limit_request_fields).",
                "limit_request_fields",
            )
        if len(lines[0]) > self.line_size > 0:
            raise line_too_long(self.line_size, len(lines[0]))
        if len(head) > self.field_size:
            for line in lines[1:]:
                if len(line) + 2 > self.field_size:
                    raise Rejection(
                        431,
                        f"A header field of {len(line) + 2:,} bytes exceeds the limit of "
                        f"{self.field_size:,} bytes (limit_request_field_size).",
                        "limit_request_field_size",
                    )

    def _request_line(self, line: str) -> tuple[str, str, str, str, str]:
        """Return method, target, path, query and protocol of a request line."""
        parts = line.split(" ", 2)
        if len(parts) != 3:
            raise Rejection(
                400,
                f"Malformed request line {quote(line)}: method, target and version are expected, "
                "separated by single spaces.",
            )
        method, target, protocol = parts
        if not _METHOD.fullmatch(method):
            raise Rejection(400, f"Invalid method {quote(method)}.")
        if not _VERSION.fullmatch(protocol):
            raise Rejection(
                400, f"Unsupported version {quote(protocol)}: use HTTP/1.1 or HTTP/1.0."
            )
        if not is_target(method, target):
            raise Rejection(400, f"Invalid target {quote(target)} for the method {method}.")
        try:
            url = split_request_uri(target)
        except ValueError:
            raise Rejection(400, f"Invalid target {quote(target)}: it is not a URI.") from None
        path = unquote_to_wsgi_str(url.path) if "%" in url.path else url.path
        parsed = (method, target, path, url.query, protocol)
        if len(line) <= _LONGEST_REMEMBERED:
            if len(self._lines) >= _MAX_REMEMBERED:
                self._lines.clear()
            self._lines[line] = parsed
        return parsed

    def _set_host(self, environ: Environ, target: str) -> None:
        """Check the Host, which an absolute target overrides (RFC 9112, section 3.2)."""
        host = environ.get("HTTP_HOST")
        if host not in self._hosts:
            self._check_host(environ, host)
        if target[:1] not in "/*" and environ["REQUEST_METHOD"] != "CONNECT":
            environ["HTTP_HOST"] = authority(target)

    def _check_host(self, environ: Environ, host: str | None) -> None:
        if host is None:
            if environ["SERVER_PROTOCOL"] != "HTTP/1.0":
                raise Rejection(400, "The Host header is missing, which HTTP/1.1 requires.")
        elif port_of(host) is None:
            raise Rejection(400, f"Invalid Host {quote(host)}: HOST or HOST:PORT is expected.")
        elif len(host) <= _LONGEST_REMEMBERED:
            if len(self._hosts) >= _MAX_REMEMBERED:
                self._hosts.clear()
            self._hosts.add(host)

    def _key(self, name: str, value: str, environ: Environ) -> str:
        """Return the environ's key of a header that is not cached."""
        if not _TOKEN.fullmatch(name):
            if name[:1] in (" ", "\t"):
                raise Rejection(400, "A header is folded over several lines, which is obsolete.")
            raise Rejection(400, f"Invalid header name {quote(name)}.")
        key = _key(name.upper())
        if "_" in name:
            return self._underscored(name.upper(), key, value, environ)
        if len(name) <= _LONGEST_REMEMBERED:
            if len(self._keys) >= _MAX_REMEMBERED:
                self._keys = _COMMON_KEYS.copy()
            self._keys[name] = key
        return key

    def _underscored(self, name: str, key: str, value: str, environ: Environ) -> str:
        """Return the environ's key of a header whose name has an underscore.

        X-Forwarded-For and X_Forwarded_For have the same key, so that a client could forge with the
        latter what a proxy sets in the former.
        """
        if name in self._forwarders or "*" in self._forwarders:
            if name == "SCRIPT_NAME":
                environ["SCRIPT_NAME"] = value.strip(" \t")
        elif self._cfg.header_map == "drop":
            return _DROPPED
        elif self._cfg.header_map != "dangerous":
            raise Rejection(400, f"The header name {quote(name)} has an underscore; use hyphens.")
        if key in _FRAMING or key in self._schemes:
            raise Rejection(400, f"The header {name} must be spelled with hyphens.")
        return key

    def _set_scheme(self, environ: Environ, repeated: dict[str, list[str]]) -> None:
        said = set()
        for key, secure in self._schemes.items():
            if key in environ:
                said |= {value == secure for value in repeated.get(key, [environ[key]])}
        if len(said) == 2:
            raise Rejection(400, "The proxy's headers disagree whether the scheme is https.")
        if said:
            environ["wsgi.url_scheme"] = "https" if said.pop() else "http"


_DROPPED = "dropped"
"""The environ's key of headers that are dropped."""


def is_trusted(cfg: Any, peer: object) -> bool:
    """Return True if ``peer`` is trusted as a proxy (``forwarded_allow_ips``).

    It is the address from `socket.accept`; every client of a Unix socket is trusted.
    """
    if not isinstance(peer, tuple) or "*" in cfg.forwarded_allow_ips:
        return True
    try:
        address = ipaddress.ip_address(peer[0])
    except ValueError:
        return False
    return any(address in network for network in cfg.forwarded_allow_networks())


def _key(name: str) -> str:
    key = name.replace("-", "_")
    return key if name in ("CONTENT-TYPE", "CONTENT-LENGTH") else "HTTP_" + key


_COMMON_KEYS = {name: _key(name.upper()) for name in _COMMON_NAMES}
_COMMON_KEYS |= {name.lower(): key for name, key in _COMMON_KEYS.items()}


def _split_script_name(environ: Environ, prefix: str) -> None:
    # The path as it was sent, because the prefix is compared before decoding.
    path = split_request_uri(environ["RAW_URI"]).path
    # Unlike Gunicorn, which splits /ab into /a and b, and fails (500) without the prefix.
    if not path.startswith(prefix) or path[len(prefix) :][:1] not in ("", "/"):
        raise Rejection(404, "The path does not begin with the configured prefix (SCRIPT_NAME).")
    environ["SCRIPT_NAME"] = prefix
    environ["PATH_INFO"] = unquote_to_wsgi_str(path[len(prefix) :])


def _control_character(lines: list[str]) -> Rejection:
    for number, line in enumerate(lines):
        for character in line:
            if not (character >= " " or character == "\t") or character == "\x7f":
                place = f"header line {number}" if number else "the request line"
                return Rejection(400, f"The byte {ord(character):#04x} is not allowed in {place}.")
    raise AssertionError(lines)
