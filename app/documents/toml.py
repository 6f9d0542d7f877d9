"""TOML files that people write: read within a bound, and refused in words."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from .text import NotUtf8, decode


class NotToml(ValueError):
    """A file that isn't TOML; the message goes on from the file's name."""


def read_toml(path: Path, max_bytes: int) -> dict[str, Any]:
    """Return the document in the file at ``path``, of ``max_bytes`` at most.

    Raises `NotToml`, and `OSError` where the file can't be read.
    """
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise NotToml(f"is larger than {max_bytes:,} bytes; is it the right file?")
    try:
        return tomllib.loads(decode(content))
    except NotUtf8 as error:
        raise NotToml(str(error)) from None
    # Beside its own error tomllib lets through an integer of too many digits, and too deep nesting.
    except (ValueError, RecursionError) as error:
        raise NotToml(f"is not TOML: {error}.") from None
