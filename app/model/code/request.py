"""A request as a handler gets it: whole, and free of HTTP's library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from .errors import HandlerRefusal

_SECRETS = frozenset({"authorization", "proxy-authorization", "x-api-key", "cookie"})


class Headers(Mapping[str, str]):
    """The header fields of a request; their names are the same in any case.

    Those that hold a caller's keys are left out: no handler needs them, and its logs and answers
    can't repeat them.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        lower = {name.lower(): value for name, value in headers.items()}
        self._values = {name: value for name, value in lower.items() if name not in _SECRETS}

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


class HandlerRequest:
    """A request as a caller sends it for one answer.

    ``body`` is the content, ``content_type`` its media type as sent, and empty if none was.
    ``parameters`` are those of the URL, and further fields of a form. ``field`` is the name of the
    form's field that had the body; "body" where there was no form.
    """

    __slots__ = ("body", "content_type", "field", "headers", "parameters")

    def __init__(
        self,
        body: bytes,
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
        field: str = "body",
    ) -> None:
        self.body = body
        self.content_type = content_type
        self.headers: Mapping[str, str] = Headers(headers or {})
        self.parameters: Mapping[str, str] = dict(parameters or {})
        self.field = field

    def json(self) -> Any:
        """Return the body as JSON. A body that is not JSON is refused with 400."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise HandlerRefusal(f"The body is not JSON: {error}.", 400) from error
