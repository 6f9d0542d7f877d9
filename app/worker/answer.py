"""The answer to a request: what the application gives, checked and framed (PEP 3333, RFC 9112).

It appends to the list of what its connection is to send and knows nothing of sockets. The rules
for what the application may give are those of Gunicorn's own workers.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from types import TracebackType

from gunicorn import SERVER

from .environ import HELD
from .head import Request
from .refusal import Refusal

Application = Callable[..., Iterable[bytes]]
Part = bytes | memoryview
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

_STATUS = re.compile(r"[0-9]{3}(?: [ \t\x21-\x7e\x80-\xff]*)?")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")

_OF_THE_SERVER = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te"),
        *("trailers", "trailer", "transfer-encoding", "upgrade", "server", "date"),
    }
)
"""Fields that are the server's own to set; an application's are left out."""

_MOST_CHECKED = 512
_checked_statuses: dict[str, int] = {}
_checked_names: dict[str, str] = {}
"""What was checked: the codes of statuses, and names in lower case. Applications use few."""

_ALONE = 65536
"""Parts of this many bytes are sent as they are, because joining them costs more than it saves."""


class Answer:
    """The answer to one request; `start` is the ``start_response`` of PEP 3333.

    ``status``, ``headers``, ``sent`` (bytes of the body), ``response_length`` and ``headers_sent``
    are what Gunicorn's hooks and access log read. ``keep_alive`` says whether the connection may
    stay open, as far as is known, and ``is_made`` that all parts are there.
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
        "is_made",
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
        self.is_made = False

    @property
    def held(self) -> int:
        """How many bytes the application says that it keeps for the parts that are to come."""
        held: int = self.request.environ.get(HELD, 0)
        return held

    def call(self, application: Application) -> None:
        """Have the application answer; `take` gives what it returned. Raises what it raises."""
        iterable = self._iterable = application(self.request.environ, self.start)
        # A body of one piece has a length, which costs the client less than a chunk.
        if isinstance(iterable, list | tuple):
            self.is_made = True
            if len(iterable) == 1:
                self._only = len(iterable[0])
        self._iterator = iter(iterable)

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """Begin the answer, or replace what was begun and not sent yet.

        Raises `TypeError` or `ValueError` for what HTTP can't carry, `AssertionError` for a second
        start, and the error in ``exc_info`` where it is too late to replace anything.
        """
        if exc_info:
            try:
                if self.headers_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # it would keep its traceback's frames, and this one, alive
        elif self.status is not None:
            raise AssertionError("start_response: the headers are already set")
        code = _checked_statuses.get(status) or _check_status(status)
        forbids_length = code == 204 or code < 200
        length: int | None = None
        kept: list[tuple[str, str]] = []
        lines = ""
        for name, value in headers:
            lowered = _checked_names.get(name) or _check_name(name)
            if not (type(value) is str and value.isascii() and value.isprintable()):
                _check_value(name, value)
            if lowered in _OF_THE_SERVER:
                continue
            if lowered == "content-length":
                if forbids_length:
                    continue
                if not value.isdecimal():
                    raise ValueError(f"{value!r} is not a length")
                if length is not None:
                    raise ValueError("there are two lengths")
                length = int(value)
            stripped = value.strip(" \t")
            kept.append((name, stripped))
            lines += f"{name}: {stripped}\r\n"
        # All at once: an application may go on after a start that failed.
        self._is_bodiless = forbids_length or code == 304
        self._omits_body = self._is_bodiless or self.request.method == "HEAD"
        self._lines, self.headers, self.response_length = lines, kept, length
        self.status = status
        if code < 200:
            self.keep_alive = False  # the client waits for the final answer
        return self.write

    def write(self, data: bytes) -> None:
        """Frame a part of the body; what exceeds the promised length is left out."""
        if not isinstance(data, bytes):
            raise TypeError(f"{data!r} is not bytes")
        if self.status is None:
            raise AssertionError("a body was given before start_response was called")
        if not data:
            return  # it says nothing; in chunks it would say that this is the end
        head = b"" if self.headers_sent else self._head()
        if self._omits_body:
            data = b""
        elif self.response_length is not None:
            data = data[: self.response_length - self.sent]
        self.sent += len(data)
        if self._chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if len(data) < _ALONE:
            self._out.append(head + data)
        else:
            self._out += (head, data) if head else (data,)

    def take(self) -> bool:
        """Frame the next part of what the application returned; tell whether there was one.

        Raises what the application raises.
        """
        assert self._iterator is not None
        for data in self._iterator:
            self.write(data)
            return True
        return False

    def end(self) -> None:
        """Frame the end, once `take` has given nothing more.

        Raises `AssertionError` where the application never began.
        """
        if self.status is None:
            raise AssertionError("the application returned and did not call start_response")
        if not self.headers_sent:
            self._out.append(self._head())
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        elif not (self._omits_body or self.response_length in (None, self.sent)):
            self.keep_alive = False  # what follows would be taken for the rest

    def replace(self, refusal: Refusal) -> None:
        """Answer ``refusal`` instead of what the application began, as long as nothing was sent."""
        self.status = None
        self.start(_status_of(refusal), _fields_of(refusal))
        self.write(refusal.body)

    def close(self) -> None:
        """Close what the application returned, whether it was taken to its end or not.

        Raises what the application raises.
        """
        iterable, self._iterable = self._iterable, None
        close = getattr(iterable, "close", None)
        if close is not None:
            close()

    def _head(self) -> bytes:
        """Give the status line and the fields, and settle how the body is framed."""
        self.headers_sent = True
        protocol = "HTTP/1.1"
        framing = ""
        if self.request.version == (1, 0):
            protocol = "HTTP/1.0"
        if self.response_length is None and self._only is not None and not self._is_bodiless:
            # HEAD answered with an empty body doesn't tell what GET would be answered with.
            if self._only or self.request.method != "HEAD":
                self.response_length = self._only
                self.headers.append(("Content-Length", str(self._only)))
                framing = f"Content-Length: {self._only}\r\n"
        elif self.response_length is None and not self._omits_body:
            if protocol == "HTTP/1.1":
                self._chunked = True
                framing = "Transfer-Encoding: chunked\r\n"
            else:
                self.keep_alive = False  # its end is the end of the connection
        connection = "keep-alive" if self.keep_alive else "close"
        return (
            f"{protocol} {self.status}\r\nServer: {SERVER}\r\nDate: {_date()}\r\n"
            f"Connection: {connection}\r\n{framing}{self._lines}\r\n"
        ).encode("latin-1")


def refusal_answer(refusal: Refusal) -> bytes:
    """Give the whole answer to a request that couldn't be read; the connection is closed after."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in _fields_of(refusal))
    head = (
        f"HTTP/1.1 {_status_of(refusal)}\r\nServer: {SERVER}\r\nDate: {_date()}\r\n"
        f"Connection: close\r\n{fields}\r\n"
    )
    return head.encode() + refusal.body


def _status_of(refusal: Refusal) -> str:
    return f"{refusal.status.value} {refusal.status.phrase}"


def _fields_of(refusal: Refusal) -> list[tuple[str, str]]:
    fields = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(refusal.body))),
    ]
    if refusal.retry_after is not None:
        fields.append(("Retry-After", str(refusal.retry_after)))
    return fields


def _check_status(status: str) -> int:
    if not isinstance(status, str):
        raise TypeError(f"{status!r} is not a string")
    if not _STATUS.fullmatch(status):
        raise ValueError(f"{status!r} is not a status")
    code = int(status[:3])
    if len(_checked_statuses) >= _MOST_CHECKED:
        _checked_statuses.clear()
    _checked_statuses[status] = code
    return code


def _check_name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is not a string")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a field")
    lowered = name.lower()
    if len(_checked_names) >= _MOST_CHECKED:
        _checked_names.clear()
    _checked_names[name] = lowered
    return lowered


def _check_value(name: str, value: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"the value of {name} is not a string")
    if not _VALUE.fullmatch(value):  # not quoted: it may be a secret
        raise ValueError(f"the value of {name} holds a character that no field may hold")


_date_at = 0
_date_text = ""


def _date() -> str:
    """Give the time as HTTP writes it, made once a second."""
    global _date_at, _date_text
    now = int(time.time())
    if now != _date_at:
        _date_at, _date_text = now, formatdate(now, usegmt=True)
    return _date_text
