"""A request whose head was parsed."""

from __future__ import annotations

from .contract import Environ


class Request:
    """A request whose head was parsed.

    ``length`` is that of its body in bytes, None for a chunked body, and ``body_size`` how many
    were received. ``keep_alive`` is True if the client lets the connection stay open.
    """

    __slots__ = (
        "body_size",
        "environ",
        "expects_continue",
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
        self.body_size = 0
        self.keep_alive = True
        self.expects_continue = False

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers as Gunicorn's hooks and access log expect them, with names in upper case."""
        return [
            (key.removeprefix("HTTP_").replace("_", "-"), value)
            for key, value in self.environ.items()
            if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH")
        ]

    def extending(self, template: Environ) -> Request:
        """Return this request with the environ that extends a copy of ``template``."""
        request = Request(template | self.environ, self.method, self.uri, self.path, self.query)
        request.version = self.version
        request.length = self.length
        request.keep_alive = self.keep_alive
        request.expects_continue = self.expects_continue
        return request
