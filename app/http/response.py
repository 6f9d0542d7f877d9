"""Flask's response, which is sent as it is if nothing of it has to be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import flask

from .context import CONTEXT, RequestContext, StreamedResponse

_BODILESS = frozenset({*range(100, 200), 204, 304})
_LOCATIONS = frozenset({"location", "content-location"})
"""Headers that werkzeug makes URLs of, in lower case."""


class Response(flask.Response):
    """A response of this application; see `flask.Flask.response_class`."""

    def get_wsgi_response(
        self, environ: dict[str, Any]
    ) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """Return the body, the status and the headers for the server.

        Werkzeug copies all headers one by one for those few responses of which it changes some:
        redirects, and those without a body or of unknown length.
        """
        if self.direct_passthrough:
            self._close_file()
        parts = self.response
        if isinstance(parts, StreamedResponse):
            context: RequestContext = environ[CONTEXT]
            context.is_streamed = True
        if (
            type(parts) is list
            and len(parts) == 1
            and type(parts[0]) is bytes
            and self.status_code not in _BODILESS
            and environ["REQUEST_METHOD"] != "HEAD"
        ):
            headers = [*self.headers]
            names = {name.lower() for name, _ in headers}
            if "content-length" in names and names.isdisjoint(_LOCATIONS):
                body = _Body(parts)
                body.close = self.close
                return body, self.status, headers
        return super().get_wsgi_response(environ)

    def _close_file(self) -> None:
        """Replace a file by its content: clients that don't read could exhaust the open files."""
        self.direct_passthrough = False
        body = b"".join(self.iter_encoded())
        self.close()
        self.set_data(body)


class _Body(list[bytes]):
    """A body; the server calls ``close`` once it is sent (PEP 3333)."""

    __slots__ = ("close",)
    close: Callable[[], None]
