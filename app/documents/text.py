"""Text files: UTF-8, with or without a byte order mark, in any locale.

File names and environment variables are bytes to the system; Python decodes them by the locale,
with surrogates for what doesn't fit. Here they become the text that people wrote.
"""

from __future__ import annotations

import codecs
import os
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1 << 16
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # before UTF-16, because its mark begins with that of UTF-16
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class NotUtf8(ValueError):
    """Bytes that are not UTF-8; the message continues from the file's name."""


def decode(content: bytes) -> str:
    """Return the text of a file without its byte order mark.

    Raises `NotUtf8`, which names the line and the expected encoding.
    """
    check_encoding(content[:_CHUNK_BYTES])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise find_fault(BytesIO(content)) from None


def check_encoding(head: bytes) -> None:
    """Raise `NotUtf8` if the first bytes of a file show that it is in UTF-16 or UTF-32.

    Without a mark, null bytes show it: in English text, every other byte of UTF-16 is null.
    """
    found = next((name for mark, name in _MARKS if head.startswith(mark)), "")
    if not found and len(head) >= 2 and 3 * head.count(0) > len(head):
        found = "UTF-16"
    if found:
        raise NotUtf8(f"is {found}, not UTF-8; save it in UTF-8.")


def find_fault(file: BinaryIO) -> NotUtf8:
    """Return the error for ``file``, which failed to decode, with the line that is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    place = ""
    if file.seekable():
        file.seek(0)
        line = 1
        try:
            while chunk := file.read(_CHUNK_BYTES):
                line += decoder.decode(chunk).count("\n")
        except UnicodeDecodeError as error:
            line += error.object.count(b"\n", 0, error.start)
        place = f" on line {line}"
    return NotUtf8(f"is not UTF-8{place}; save it in UTF-8.")


def readable(text: str) -> str:
    """Return ``text`` with what the locale could not decode as UTF-8, or replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def print_anything() -> None:
    """Make standard output and error write escapes for characters that their encoding lacks.

    A class named ``größe`` must not crash a program on a terminal with another encoding.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def to_path(text: str) -> Path:
    """Return the path whose name in UTF-8 is ``text``, in any locale."""
    return Path(os.fsdecode(text.encode("utf-8", "surrogateescape")))
