"""The response to a request: the application's output, checked and framed (PEP 3333, RFC 9112).

It appends parts to those that its connection sends, and knows nothing of sockets. Applications may
return what they may under Gunicorn's own workers.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from functools import lru_cache
from types import TracebackType

from gunicorn import SERVER

from .rejection import Rejection
from .request import Request

Application = Callable[..., Iterable[bytes]]
Part = bytes | memoryview
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

_STATUS = re.compile(r"[0-9]{3}(?: [ \t\x21-\x7e\x80-\xff]*)?")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")

_SERVER_FIELDS = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te"),
        *("trailers", "trailer", "transfer-encoding", "upgrade", "server", "date"),
    }
)
"""Headers that the server sets; those of the application are dropped."""

_MAX_CHECKED = 512
_checked_statuses: dict[str, int] = {}
_checked_names: dict[str, str] = {}
"""Caches of valid statuses (their codes) and names (in lower case). Applications use few."""

_UNJOINED_BYTES = 65536
"""Parts of at least this size are not joined to the head, because copying them costs more."""


class Response:
    """The response to a request; `start` is the ``start_response`` of PEP 3333.

    ``status``, ``headers``, ``sent`` (bytes of the body), ``response_length`` and ``headers_sent``
    are what Gunicorn's hooks and access log read. ``keep_alive`` is True while the connection may
    stay open, and ``is_complete`` if the application has produced all parts; ``is_whole`` if that
    is one.
    """

    __slots__ = (
        "_chunked",
        "_is_bodiless",
        "_iterable",
        "_iterator",
        "_lines",
        "_omits_body",
        "_only",
        "_out",
        "headers",
        "headers_sent",
        "is_complete",
        "is_whole",
        "keep_alive",
        "request",
        "response_length",
        "sent",
        "started",
        "status",
    )

    def __init__(self, request: Request, out: deque[Part], *, keep_alive: bool) -> None:
        self.request = request
        self._out = out
        self.keep_alive = keep_alive
        self.status: str | None = None
        self.headers: list[tuple[str, str]] = []
        self.headers_sent = False
        self.response_length: int | None = None
        self.sent = 0
        self.started = 0.0
        self._chunked = False
        self._is_bodiless = self._omits_body = False
        self._lines = ""
        self._only: int | None = None
        self._iterable: Iterable[bytes] | None = None
        self._iterator: Iterator[bytes] | None = None
        self.is_complete = self.is_whole = False

    def call(self, application: Application) -> None:
        """Call the application, and raise what it raises; `write_next` frames what it returned."""
        iterable = self._iterable = application(self.request.environ, self.start)
        # A body of one part has a known length, which costs the client less than a chunk.
        if isinstance(iterable, (list, tuple)):
            self.is_complete = True
            if len(iterable) == 1:
                self.is_whole = True
                self._only = len(iterable[0])
        self._iterator = iter(iterable)

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """Set the status and headers, or replace them before they are sent.

        Raises `TypeError` or `ValueError` if they are invalid, `AssertionError` for a second call
        without ``exc_info``, and the error in ``exc_info`` once the headers are sent.
        """
        if exc_info:
            try:
                if self.headers_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # breaks the cycle of its traceback and this frame
        elif self.status is not None:
            raise AssertionError("start_response was called twice: the headers are already set")
        code = _checked_statuses.get(status) or _check_status(status)
        forbids_length = code == 204 or code < 200
        length: int | None = None
        kept: list[tuple[str, str]] = []
        lines = ""
        for name, value in headers:
            lowered = _checked_names.get(name) or _check_name(name)
            if not (type(value) is str and value.isascii() and value.isprintable()):
                _check_value(name, value)
            if lowered in _SERVER_FIELDS:
                continue
            if lowered == "content-length":
                if forbids_length:
                    continue
                if not value.isdecimal():
                    raise ValueError(f"invalid Content-Length: {value!r}")
                if length is not None:
                    raise ValueError("Content-Length occurs more than once")
                length = int(value)
            stripped = value.strip(" \t")
            kept.append((name, stripped))
            lines += f"{name}: {stripped}\r\n"
        # Assigned together: an application may go on after a call that failed.
        self._is_bodiless = forbids_length or code == 304
        self._omits_body = self._is_bodiless or self.request.head.method == "HEAD"
        self._lines, self.headers, self.response_length = lines, kept, length
        self.status = status
        if code < 200:
            self.keep_alive = False  # the client waits for the final response
        return self.write

    def write(self, data: bytes) -> None:
        """Frame a part of the body; bytes beyond Content-Length are dropped."""
        if not isinstance(data, bytes):
            raise TypeError(f"the body must be bytes, not {type(data).__name__}")
        if self.status is None:
            raise AssertionError("a part of the body was produced before start_response was called")
        if not data:
            return  # an empty chunk would end the body
        head = b"" if self.headers_sent else self._head()
        if self._omits_body:
            data = b""
        elif self.response_length is not None:
            data = data[: self.response_length - self.sent]
        self.sent += len(data)
        if self._chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if len(data) < _UNJOINED_BYTES:
            self._out.append(head + data)
        else:
            self._out += (head, data) if head else (data,)

    def write_next(self) -> bool:
        """Frame the next part that the application returned; return False if there is none.

        Raises what the application raises.
        """
        assert self._iterator is not None
        for data in self._iterator:
            self.write(data)
            return True
        return False

    def write_whole(self) -> None:
        """Frame a body of one part, and the end. Raises as `finish` does."""
        assert self._iterator is not None
        data = next(self._iterator)
        if (
            type(data) is bytes
            and len(data) == self.response_length
            and len(data) < _UNJOINED_BYTES
            and not (self._omits_body or self.headers_sent)
        ):
            self.sent = len(data)
            self._out.append(self._head() + data)
        else:
            self.write(data)
            self.finish()

    def finish(self) -> None:
        """Frame the end, once `write_next` has returned False.

        Raises `AssertionError` if the application never called ``start_response``.
        """
        if self.status is None:
            raise AssertionError("the application did not call start_response")
        if not self.headers_sent:
            self._out.append(self._head())
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        elif not (self._omits_body or self.response_length in (None, self.sent)):
            self.keep_alive = False  # the next response would be read as the rest

    def replace(self, rejection: Rejection) -> None:
        """Respond with ``rejection`` instead; the headers must not have been sent."""
        self.status = None
        self.start(_status_of(rejection), _fields_of(rejection))
        self.write(rejection.body)

    def close(self) -> None:
        """Close what the application returned, whether or not it was consumed.

        Raises what the application raises.
        """
        iterable, self._iterable = self._iterable, None
        close = getattr(iterable, "close", None)
        if close is not None:
            close()

    def _head(self) -> bytes:
        """Return the status line and headers, and decide how the body is framed."""
        self.headers_sent = True
        protocol = "HTTP/1.1"
        framing = ""
        if self.request.head.version == (1, 0):
            protocol = "HTTP/1.0"
        if self.response_length is None and self._only is not None and not self._is_bodiless:
            # An empty body in response to HEAD doesn't tell the length of that to GET.
            if self._only or self.request.head.method != "HEAD":
                self.response_length = self._only
                self.headers.append(("Content-Length", str(self._only)))
                framing = f"Content-Length: {self._only}\r\n"
        elif self.response_length is None and not self._omits_body:
            if protocol == "HTTP/1.1":
                self._chunked = True
                framing = "Transfer-Encoding: chunked\r\n"
            else:
                self.keep_alive = False  # the end of the connection ends the body
        assert self.status is not None
        own = _own_lines(protocol, self.status, int(time.time()), self.keep_alive)
        return f"{own}{framing}{self._lines}\r\n".encode("latin-1")


def rejection_response(rejection: Rejection) -> bytes:
    """Return the complete response to a rejected request, after which the connection closes."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in _fields_of(rejection))
    own = _own_lines("HTTP/1.1", _status_of(rejection), int(time.time()), keep_alive=False)
    return f"{own}{fields}\r\n".encode() + rejection.body


def _status_of(rejection: Rejection) -> str:
    return f"{rejection.status.value} {rejection.status.phrase}"


def _fields_of(rejection: Rejection) -> list[tuple[str, str]]:
    fields = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(rejection.body))),
    ]
    if rejection.retry_after is not None:
        fields.append(("Retry-After", str(rejection.retry_after)))
    return fields


def _check_status(status: str) -> int:
    if not isinstance(status, str):
        raise TypeError(f"{status!r} is not a string")
    if not _STATUS.fullmatch(status):
        raise ValueError(f"invalid status: {status!r}")
    code = int(status[:3])
    if len(_checked_statuses) >= _MAX_CHECKED:
        _checked_statuses.clear()
    _checked_statuses[status] = code
    return code


def _check_name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is not a string")
    if not _NAME.fullmatch(name):
        raise ValueError(f"invalid header name: {name!r}")
    lowered = name.lower()
    if len(_checked_names) >= _MAX_CHECKED:
        _checked_names.clear()
    _checked_names[name] = lowered
    return lowered


def _check_value(name: str, value: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"the value of the header {name} is not a string")
    if not _VALUE.fullmatch(value):  # not quoted: it may be a secret
        raise ValueError(f"the value of the header {name} has a character that is not allowed")


@lru_cache(maxsize=32)
def _own_lines(protocol: str, status: str, second: int, keep_alive: bool) -> str:
    """Return the first lines of a response in a second of the clock: those that the server sets."""
    connection = "keep-alive" if keep_alive else "close"
    return (
        f"{protocol} {status}\r\nServer: {SERVER}\r\nDate: {formatdate(second, usegmt=True)}\r\n"
        f"Connection: {connection}\r\n"
    )


@lru_cache(maxsize=4)
def ok_lines(second: int, keep_alive: bool) -> bytes:
    """Return those of a response with the status 200, in bytes."""
    return _own_lines("HTTP/1.1", "200 OK", second, keep_alive).encode()
