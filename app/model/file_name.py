"""The form of the names by which a manifest lists the files of its bundle."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}"

FileName = Annotated[
    # One with a slash or dots could lead out of the bundle.
    str,
    Meta(
        pattern=rf"\A{_SEGMENT}\Z",
        description="named like a plain file of the bundle's directory",
    ),
]
