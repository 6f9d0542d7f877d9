"""The media types that a request body may have."""

from __future__ import annotations

import re
from dataclasses import dataclass

JSON = "application/json"
_SUFFIXED_JSON = re.compile(r"[^/]+/[^/]+\+json")


@dataclass(frozen=True, slots=True)
class MediaTypes:
    """Media types such as ``text/plain``, ``image/*`` and ``*/*``; JSON also under names that end
    with ``+json``.
    """

    names: tuple[str, ...]

    def __contains__(self, media_type: str) -> bool:
        """Return True if a body may be of ``media_type``, in lower case and without parameters."""
        main, _, _ = media_type.partition("/")
        return (
            media_type in self.names
            or "*/*" in self.names
            or f"{main}/*" in self.names
            or (JSON in self.names and _SUFFIXED_JSON.fullmatch(media_type) is not None)
        )

    def __str__(self) -> str:
        *others, last = self.names
        return f"{', '.join(others)} or {last}" if others else last


ONLY_JSON = MediaTypes((JSON,))
ANYTHING = MediaTypes(("*/*",))
