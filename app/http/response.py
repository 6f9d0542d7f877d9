"""Flask's response, which is sent as it is if nothing of it has to be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import flask


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
        parts, status = self.response, self.status_code
        if type(parts) is list and status >= 200 and status not in (204, 304):
            headers = self.headers.to_wsgi_list()
            names = {name.lower() for name, _ in headers}
            if (
                "content-length" in names
                and "location" not in names
                and "content-location" not in names
                and environ["REQUEST_METHOD"] != "HEAD"
            ):
                return _Body(parts, self.close), self.status, headers
        return super().get_wsgi_response(environ)

    def _close_file(self) -> None:
        """Replace a file by its content: clients that don't read could exhaust the open files."""
        self.direct_passthrough = False
        body = b"".join(self.iter_encoded())
        self.close()
        self.set_data(body)


class _Body(list[bytes]):
    """The parts of a body; the server calls ``close`` once they are sent (PEP 3333)."""

    def __init__(self, parts: Iterable[Any], close: Callable[[], None]) -> None:
        super().__init__(part.encode() if isinstance(part, str) else part for part in parts)
        self.close = close
