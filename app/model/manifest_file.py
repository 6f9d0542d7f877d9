"""``manifest.json``: reading and writing it.

Every fault in it is named by its member; nothing in the file is believed before it is checked.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import orjson
from msgspec import Meta, Struct

from ..documents.schema import SchemaError, read_as
from ..documents.text import NotUtf8, decode
from .errors import BundleError
from .file_kind import foreign_kind
from .manifest import Manifest
from .manifest_formats import manifest_document, parse_manifest

FILE_NAME = "manifest.json"
LARGEST_FILE = 16 << 20
"""The largest manifest, in bytes; ``/model/info`` repeats most of it."""


class _Named(Struct):
    """The part of a manifest that names the model."""

    name: Annotated[str, Meta(min_length=1)]


def read_manifest(path: Path) -> Manifest:
    """Read ``manifest.json``. Raises `BundleError`, which names the member that is wrong."""
    document = _read_document(path)
    try:
        return parse_manifest(document)
    except (BundleError, SchemaError) as error:
        raise BundleError(f"{path}: {error}") from None


def read_name(path: Path) -> str:
    """Read only the model's name from ``manifest.json``. Raises `BundleError`."""
    document = _read_document(path)
    try:
        return read_as(_Named, document).name
    except SchemaError as error:
        raise BundleError(f"{path}: {error}") from None


def _read_document(path: Path) -> Any:
    if not path.is_file():
        raise BundleError(f"{path} is missing, or not a regular file.")
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise BundleError(
                f"{path} has {size:,} bytes, which exceeds the limit of {LARGEST_FILE:,}: record "
                "fewer golden samples, or shorter descriptions."
            )
        # orjson is strict where json is not: no NaN, no lone surrogate, no integer beyond 64 bits;
        # a response that repeats them couldn't be encoded.
        document = orjson.loads(decode(path.read_bytes()))
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    except NotUtf8 as error:
        raise BundleError(f"{path} {error}") from None
    except orjson.JSONDecodeError as error:
        kind = foreign_kind(path)
        if kind:
            raise BundleError(f"{path} {kind}.") from error
        raise BundleError(f"{path} is not JSON: {error}") from error
    try:
        orjson.dumps([[[[document]]]])  # it writes fewer levels than it reads
    except orjson.JSONEncodeError:
        raise BundleError(
            f"{path} is nested too deeply: a response that repeats it couldn't be encoded."
        ) from None
    return document


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write ``manifest`` to ``path`` as JSON that people can read and `read_manifest` accepts."""
    document = manifest_document(manifest)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")
