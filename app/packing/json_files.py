"""JSON files that packing reads: an object, within a limit of size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from ..model.errors import BundleError


def read_object(path: Path, largest: int, *, advice: str = "") -> dict[str, Any]:
    """Return the object in the JSON file at ``path``, which has at most ``largest`` bytes.

    Raises `BundleError`; ``advice`` says what to do about a file that is larger, or no object.
    """
    more = f" {advice}" if advice else ""
    try:
        size = path.stat().st_size
        if size > largest:
            raise BundleError(f"{path} has {size:,} bytes, and at most {largest:,} are read.{more}")
        document = orjson.loads(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    except orjson.JSONDecodeError as error:
        raise BundleError(f"{path} is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise BundleError(f"{path} must be an object.{more}")
    return document
