"""Forms: ``multipart/form-data`` (RFC 7578), read in time and memory in proportion to the body.

Of a part, its name and its Content-Type are read. Its content stays bytes: an image is not text,
whether it has a file's name or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .media_types import parse_header

FORM = "multipart/form-data"
MAX_PARTS = 20_000
"""The most parts of a form: a text and its pair for each sample of the largest batch."""
_LONGEST_HEAD = 8 << 10
"""The most bytes of the headers of one part."""
_LONGEST_HEADS = 4 << 20
"""The most bytes of the headers of all parts: 200 for each of the most parts."""
_MOST_HEADERS = 16
"""The most headers of one part: it has two, and few programs add one or two."""
_LONGEST_BOUNDARY = 200
_LINE = b"\r\n"
_IDENTITY = ("", "7bit", "8bit", "binary")


class MalformedBody(ValueError):
    """A body that isn't of its Content-Type; the message says why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Part:
    """The content of a field of a form, and its Content-Type, which may be missing."""

    body: bytes
    content_type: str = ""

    @property
    def charset(self) -> str:
        """The charset in its Content-Type; empty if there is none."""
        return parse_header(self.content_type)[1].get("charset", "")


def read_form(body: bytes, boundary: str) -> Mapping[str, Sequence[Part]]:
    """Return the parts of a form by the names of its fields, in their order. Raises
    `MalformedBody`.
    """
    if not boundary:
        raise MalformedBody(
            f"The Content-Type {FORM} has no boundary: leave the header to the program that makes "
            "the form."
        )
    if len(boundary) > _LONGEST_BOUNDARY:
        raise MalformedBody(f"The boundary of the form has over {_LONGEST_BOUNDARY} characters.")
    delimiter = b"--" + boundary.encode("latin-1", "replace")
    if body.count(delimiter) > MAX_PARTS + 1:
        raise MalformedBody(f"The form has over {MAX_PARTS:,} parts. Send it in several requests.")
    fields: dict[str, list[Part]] = {}
    heads = 0
    for head, content in _split(body, delimiter):
        heads += len(head)
        if heads > _LONGEST_HEADS:
            raise MalformedBody(
                f"The headers of the form's parts have over {_LONGEST_HEADS:,} bytes. Send it in "
                "several requests."
            )
        name, part = _part(head, content)
        fields.setdefault(name, []).append(part)
    return fields


def _split(body: bytes, delimiter: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers and the content of each part."""
    # The first delimiter may begin the body; each of the others has a line of its own.
    start = 0 if body.startswith(delimiter) else body.find(_LINE + delimiter) + len(_LINE)
    if not body.startswith(delimiter, start):
        raise MalformedBody("The body has no part with the boundary that its Content-Type states.")
    start += len(delimiter)
    number = 0
    while not body.startswith(b"--", start):
        number += 1
        begun = body.find(_LINE, start, start + _LONGEST_HEAD)
        if begun < 0 or body[start:begun].strip(b" \t"):
            raise MalformedBody(f"Part {number} of the form doesn't begin with a line break.")
        end_of_head = body.find(_LINE * 2, begun, begun + _LONGEST_HEAD)
        if end_of_head < 0:
            raise MalformedBody(
                f"Part {number} of the form has no blank line after its headers, within "
                f"{_LONGEST_HEAD:,} bytes."
            )
        content = end_of_head + 2 * len(_LINE)
        # From the second line break: a part may be empty.
        end = body.find(_LINE + delimiter, content - len(_LINE))
        if end < 0:
            raise MalformedBody(f"Part {number} of the form has no end: no boundary follows it.")
        yield body[begun + len(_LINE) : end_of_head], body[content:end]
        start = end + len(_LINE) + len(delimiter)


def _part(head: bytes, content: bytes) -> tuple[str, Part]:
    """Return the name of a part, and the part."""
    try:
        text = head.decode()
    except UnicodeDecodeError:
        text = head.decode("latin-1")
    headers: dict[str, str] = {}
    lines = text.split("\r\n", _MOST_HEADERS)
    if len(lines) > _MOST_HEADERS:
        raise MalformedBody(f"A part of the form has over {_MOST_HEADERS} headers.")
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    disposition, parameters = parse_header(headers.get("content-disposition", ""))
    field = parameters.get("name")
    if disposition != "form-data" or field is None:
        raise MalformedBody(
            "A part of the form has no name: its Content-Disposition must be like "
            'form-data; name="data".'
        )
    encoding = headers.get("content-transfer-encoding", "").lower()
    if encoding not in _IDENTITY:
        raise MalformedBody(
            f"A part of the form has the Content-Transfer-Encoding {encoding[:40]!r}, which is not "
            "supported: send its bytes as they are."
        )
    return field, Part(content, headers.get("content-type", ""))
