"""The chunked transfer coding (RFC 9112, section 7.1), decoded as its bytes arrive."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable

from .body import BodyBuffer
from .rejection import Rejection, body_too_large

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_VALUE = rb"(?:" + _TOKEN + rb"|" + _QUOTED + rb")"
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]+)((?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*" + _VALUE + rb")?)*)"
)
_PLAIN_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
"""A size without an extension, as nearly all are."""

CHUNKS_AT_ONCE = 256
"""The most chunks decoded before other connections continue: less than half a millisecond."""
FREE_FRAMING = 65536
FRAMING_RATIO = 2
"""The bytes of framing that a body may have: in total, and per byte of its data. In chunks of one
byte, a body is a hundred times the work."""


class _Step(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILERS = enum.auto()


class ChunkedBody:
    """A chunked body: ``data`` is what has arrived of it, without the framing.

    ``has_more`` is True if `feed` stopped before the end of its buffer, to be fair to others.
    ``limit`` bounds the data, ``line_limit`` a line with the size of a chunk and
    ``trailers_limit`` the trailer section, all in bytes. ``check_trailers`` raises `Rejection` for
    a malformed trailer section.
    """

    __slots__ = (
        "_check_trailers",
        "_framing",
        "_left",
        "_limit",
        "_line_limit",
        "_step",
        "_trailers_limit",
        "data",
        "has_more",
    )

    def __init__(
        self,
        limit: int,
        line_limit: int,
        trailers_limit: int,
        check_trailers: Callable[[bytes], None],
    ) -> None:
        self.data = BodyBuffer()
        self._limit = limit
        self._line_limit = line_limit
        self._trailers_limit = trailers_limit
        self._check_trailers = check_trailers
        self._step = _Step.SIZE
        self._left = 0
        self._framing = 0
        self.has_more = False

    def feed(self, buffer: bytearray) -> bool:
        """Remove what belongs to the body from the front of ``buffer``; return True at its end.

        Raises `Rejection`: 400 for a malformed chunk or for far more framing than data, 413 for too
        much data, 431 for trailers that are too large.
        """
        at = chunks = 0
        self.has_more = False
        try:
            while True:
                if self._step is _Step.SIZE:
                    if chunks == CHUNKS_AT_ONCE:
                        self.has_more = True
                        return False
                    end = self._take_size(buffer, at)
                    if end < 0:
                        return False
                    chunks += 1
                    at = end
                elif self._step is _Step.DATA:
                    part = buffer[at : at + self._left]
                    self.data.append(part)
                    at += len(part)
                    self._left -= len(part)
                    if self._left:
                        return False
                    self._step = _Step.DATA_END
                elif self._step is _Step.DATA_END:
                    if not buffer.startswith(b"\r\n", at):
                        if len(buffer) - at >= 2 or not b"\r\n".startswith(buffer[at:]):
                            raise Rejection(
                                400,
                                "A chunk is longer than its size: CRLF expected after its data.",
                            )
                        return False
                    at += 2
                    self._step = _Step.SIZE
                else:
                    end = self._end_of_trailers(buffer, at)
                    at = max(at, end)
                    return end >= 0
        finally:
            del buffer[:at]

    def _take_size(self, buffer: bytearray, at: int) -> int:
        """Parse the size of the chunk that begins at ``at``; return where its data begin.

        Return -1 if the line has not arrived completely.
        """
        matched = _PLAIN_SIZE.match(buffer, at)
        if matched:
            end = matched.end()
        else:
            end = buffer.find(b"\r\n", at, at + self._line_limit + 2)
            if end < 0:
                if len(buffer) - at > self._line_limit:
                    raise Rejection(
                        400,
                        f"The line with a chunk's size exceeds the limit of {self._line_limit:,} "
                        "bytes (limit_request_field_size).",
                        "limit_request_field_size",
                    )
                return -1
            line = bytes(buffer[at:end])
            matched = _SIZE_LINE.fullmatch(line)
            if not matched:
                raise Rejection(400, f"Invalid chunk size {line[:80].decode('latin-1')!a}.")
            end += 2
        self._left = size = int(matched[1], 16)
        data = len(self.data) + size
        if data > self._limit:
            raise body_too_large(self._limit, data)
        self._framing += end - at + 2
        allowed = FREE_FRAMING + FRAMING_RATIO * data
        if self._framing > allowed:
            raise Rejection(
                400,
                f"The chunked body has {self._framing:,} bytes of framing for {data:,} bytes of "
                f"data, which exceeds the limit of {allowed:,} bytes. Send larger chunks.",
            )
        self._step = _Step.DATA if size else _Step.TRAILERS
        return end

    def _end_of_trailers(self, buffer: bytearray, at: int) -> int:
        """Return where the trailer section ends, or -1 if it has not arrived completely."""
        if buffer.startswith(b"\r\n", at):
            return at + 2
        end = buffer.find(b"\r\n\r\n", at)
        if end >= 0:
            self._check_trailers(bytes(buffer[at:end]))
            return end + 4
        if len(buffer) - at > self._trailers_limit:
            raise Rejection(
                431, f"The trailers exceed the limit of {self._trailers_limit:,} bytes."
            )
        if buffer.count(b"\n", at) != buffer.count(b"\r\n", at):
            raise Rejection(400, "A line of the trailers ends with LF instead of CRLF.")
        return -1
