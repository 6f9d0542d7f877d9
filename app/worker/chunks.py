"""The chunked transfer coding (RFC 9112, section 7.1), decoded as its bytes arrive."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable

from .body import BodyBuffer
from .rejection import Rejection

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_VALUE = rb"(?:" + _TOKEN + rb"|" + _QUOTED + rb")"
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]+)((?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*" + _VALUE + rb")?)*)"
)
_PLAIN_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
"""Nearly every size: one without an extension."""

CHUNKS_AT_ONCE = 256
"""Chunks decoded before other connections go on: they take less than half a millisecond."""
FREE_FRAMING = 65536
FRAMING_RATIO = 2
"""Bytes of framing that any body may have, and for each byte of its data: in chunks of one byte,
a body is a hundred times the work that it is in one chunk."""


class _Step(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILERS = enum.auto()


class ChunkedBody:
    """A body in chunks: ``data`` is what has arrived of it, without the framing.

    ``has_more`` is True if `feed` stopped, with more to decode, to let other connections go on.
    ``limit`` bounds the data, ``line_limit`` a line with the size of a chunk and
    ``trailers_limit`` the trailer section, all in bytes. ``check_trailers`` raises `Rejection` for
    a section that is not one.
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
        """Take what belongs to the body from the front of ``buffer``; return True at its end.

        Raises `Rejection`: 400 for what is not a chunk, or for far more framing than data, 413
        beyond the limit, 431 for trailers that are too large.
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
                            raise Rejection(400, "A chunk does not end where its size says.")
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
        """Note the size of the chunk whose line begins at ``at``, and return where its data do.

        Return -1 if the line is not here yet.
        """
        matched = _PLAIN_SIZE.match(buffer, at)
        if matched:
            end = matched.end()
        else:
            end = buffer.find(b"\r\n", at, at + self._line_limit + 2)
            if end < 0:
                if len(buffer) - at > self._line_limit:
                    raise Rejection(400, "The line with the size of a chunk is too long.")
                return -1
            line = bytes(buffer[at:end])
            matched = _SIZE_LINE.fullmatch(line)
            if not matched:
                raise Rejection(400, f"{line[:80].decode('latin-1')!a} is not the size of a chunk.")
            end += 2
        self._left = size = int(matched[1], 16)
        data = len(self.data) + size
        if data > self._limit:
            raise Rejection(413, f"The body is larger than {self._limit} bytes.")
        self._framing += end - at + 2
        if self._framing > FREE_FRAMING + FRAMING_RATIO * data:
            raise Rejection(
                400,
                f"The chunks of the body have {self._framing} bytes of framing for {data} of data: "
                f"more than {FREE_FRAMING} and {FRAMING_RATIO} for each. Send larger chunks.",
            )
        self._step = _Step.DATA if size else _Step.TRAILERS
        return end

    def _end_of_trailers(self, buffer: bytearray, at: int) -> int:
        """Return where the trailer section ends, or -1 if that is not here yet."""
        if buffer.startswith(b"\r\n", at):
            return at + 2
        end = buffer.find(b"\r\n\r\n", at)
        if end >= 0:
            self._check_trailers(bytes(buffer[at:end]))
            return end + 4
        if len(buffer) - at > self._trailers_limit:
            raise Rejection(431, f"The trailers are larger than {self._trailers_limit} bytes.")
        if buffer.count(b"\n", at) != buffer.count(b"\r\n", at):
            raise Rejection(400, "A line of the trailers ends with LF alone.")
        return -1
