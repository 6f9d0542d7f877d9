"""TOML files that people write: read within a size limit, with clear errors."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from .text import NotUtf8, decode


class NotToml(ValueError):
    """A file that isn't TOML; the message continues from the file's name."""


def read_toml(path: Path, max_bytes: int) -> dict[str, Any]:
    """Return the document in the file at ``path``, which may have ``max_bytes`` at most.

    Raises `NotToml`, and `OSError` if the file can't be read.
    """
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise NotToml(f"exceeds the limit of {max_bytes:,} bytes; is it the right file?")
    try:
        return tomllib.loads(decode(content))
    except NotUtf8 as error:
        raise NotToml(str(error)) from None
    # Besides its own error, tomllib raises these for too many digits and too deep nesting.
    except (ValueError, RecursionError) as error:
        raise NotToml(f"is not TOML: {error}.") from None
