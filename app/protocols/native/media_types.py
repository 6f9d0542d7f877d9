"""The media types that a request body may have, and headers of their form."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

JSON = "application/json"
ANY_TYPE = "*/*"
_SUFFIXED_JSON = re.compile(r"[^/]+/[^/]+\+json")
# Each character belongs to one part of it, so that it takes time in proportion to the header.
_PARAMETER = re.compile(r'\s*;\s*([^\s=;"]+)=("[^"\\]*(?:\\.[^"\\]*)*"|[^;"]*)')
_ESCAPED = re.compile(r"\\(.)")
_MOST_PARAMETERS = 32


@dataclass(frozen=True, slots=True)
class MediaTypes:
    """Media types such as ``text/plain``, ``image/*`` and ``*/*``; JSON also under names that end
    with ``+json``.
    """

    names: tuple[str, ...]

    def __contains__(self, media_type: str) -> bool:
        """Return True if a body may be of ``media_type``, in lower case and without parameters."""
        main, slash, _ = media_type.partition("/")
        return bool(
            media_type in self.names
            or ANY_TYPE in self.names
            or (slash and f"{main}/*" in self.names)
            or (JSON in self.names and _SUFFIXED_JSON.fullmatch(media_type) is not None)
        )

    def __str__(self) -> str:
        *others, last = self.names
        return f"{', '.join(others)} or {last}" if others else last

    @property
    def example(self) -> str:
        """One of them, as a caller would write it: not a form, which has a boundary."""
        first = next(name for name in self.names if not name.startswith("multipart/"))
        return first.replace("image/*", "image/jpeg")


ReadBody = Callable[[MediaTypes], bytes]
"""Returns the body of a request, which must be of one of the media types."""
ONLY_JSON = MediaTypes((JSON,))
ANYTHING = MediaTypes((ANY_TYPE,))


@lru_cache(maxsize=256)
def media_type_of(content_type: str) -> str:
    """Return a Content-Type without its parameters, in lower case. Cached: clients repeat it."""
    return content_type.partition(";")[0].strip().lower()


def parse_header(value: str) -> tuple[str, Mapping[str, str]]:
    """Return what is before the first semicolon of a Content-Type, or of a header like it, in lower
    case, and its first 32 parameters by their names in lower case; what can't be read is left out.
    """
    main, semicolon, _ = value.partition(";")
    parameters: dict[str, str] = {}
    position = len(main)
    for _ in range(_MOST_PARAMETERS if semicolon else 0):
        found = _PARAMETER.match(value, position)
        if found is None:
            break
        name, text = found.groups()
        is_quoted = text.startswith('"')
        text = "".join(_ESCAPED.split(text[1:-1])) if is_quoted else text.strip()
        parameters.setdefault(name.lower(), text)
        position = found.end()
    return main.strip().lower(), parameters
