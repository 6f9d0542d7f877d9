"""A request: its head, which was parsed, and what came with it on its connection."""

from __future__ import annotations

import io
from typing import Any

from .contract import DirectCall, Environ

Body = bytes | io.BytesIO


class Head:
    """The head of a request, of whatever connection: nothing of it changes.

    ``environ`` is the part of the environ that the head says. ``length`` is that of the body in
    bytes, None for a chunked body. ``keep_alive`` is True if the client lets the connection stay
    open. What the application says of the head is kept here, once it was asked: ``budget`` in
    seconds, and what makes its ``direct`` calls; see `KeepAliveWorker`.
    """

    __slots__ = (
        "budget",
        "direct",
        "environ",
        "expects_continue",
        "is_repeated",
        "keep_alive",
        "length",
        "method",
        "path",
        "query",
        "uri",
        "version",
    )

    def __init__(self, environ: Environ, method: str, uri: str, path: str, query: str) -> None:
        self.environ = environ
        self.method = method
        self.uri = uri
        self.path = path
        self.query = query
        self.version = (1, 1)
        self.length: int | None = 0
        self.keep_alive = True
        self.expects_continue = False
        self.is_repeated = False
        self.budget: float | None = None
        self.direct: DirectCall | None = None


class Request:
    """A request with a ``head``, on a connection whose environs begin with ``template``.

    Its body has ``body_size`` bytes. ``keep_alive`` is True if the connection may be kept after it.
    """

    __slots__ = ("_body", "_environ", "_template", "body_size", "head", "keep_alive")

    def __init__(self, head: Head, template: Environ) -> None:
        self.head = head
        self._template = template
        self._environ: Environ | None = None
        self._body: Body | None = None  # until it is in the environ, which may let go of it
        self.body_size = 0
        self.keep_alive = head.keep_alive

    @property
    def whole_body(self) -> bytes | None:
        """The body, if nobody has asked for the environ."""
        body = self._body
        return body.getvalue() if isinstance(body, io.BytesIO) else body

    @property
    def environ(self) -> Environ:
        """The environ of the request, which is made when it is first asked for."""
        environ = self._environ
        if environ is None:
            environ = self._environ = self._template | self.head.environ
            if "SERVER_NAME" not in self._template:
                _name_server(environ)
            if self._body is not None:
                environ["wsgi.input"] = _stream(self._body)
                self._body = None
        return environ

    def make_environ(self) -> Environ:
        """Return `environ`: for those who may not need it."""
        return self.environ

    def set_body(self, body: Body, size: int) -> None:
        """Set the body, of ``size`` bytes."""
        self.body_size = size
        if self._environ is None:
            self._body = body
        else:
            self._environ["wsgi.input"] = _stream(body)

    # What Gunicorn's hooks and access log expect of a request, beside its body

    @property
    def method(self) -> str:
        return self.head.method

    @property
    def uri(self) -> str:
        return self.head.uri

    @property
    def path(self) -> str:
        return self.head.path

    @property
    def query(self) -> str:
        return self.head.query

    @property
    def version(self) -> tuple[int, int]:
        return self.head.version

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers, with names in upper case."""
        return [
            (key.removeprefix("HTTP_").replace("_", "-"), value)
            for key, value in self.environ.items()
            if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH")
        ]


def _stream(body: Body) -> io.BytesIO:
    return io.BytesIO(body) if isinstance(body, bytes) else body


def _name_server(environ: dict[str, Any]) -> None:
    """Set the server's name and port from the Host: a Unix socket has neither."""
    host, _, port = environ.get("HTTP_HOST", "").partition(":")
    if host and not port:
        port = "443" if environ["wsgi.url_scheme"] == "https" else "80"
    environ["SERVER_NAME"], environ["SERVER_PORT"] = host, port
