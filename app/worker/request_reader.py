"""Reading: requests are parsed from bytes, whatever the segments in which they arrive.

The reader holds what has arrived, and knows nothing of sockets, of time or of responses.
"""

from __future__ import annotations

import enum
import io
from typing import Protocol

from .body import BodyBuffer
from .chunks import ChunkedBody
from .contract import Environ
from .head import HeadParser
from .rejection import Rejection, body_too_large, line_too_long
from .request import Body, Request

READ_BYTES = 65536
"""The most bytes to read at once of a head or of chunks."""
_BODY_BYTES = 131072
"""The most bytes to read at once of a body. Larger pieces fragment the heap."""
_ROOM_BYTES = 1 << 20
"""The most bytes to read at once into memory that was set aside, to be fair to others."""
_TRAILERS_LIMIT = 32768
_EMPTY_LINE = b"\r\n"


class BodyPolicy(Protocol):
    """The limits for bodies; see the attributes of `KeepAliveWorker`."""

    max_body_bytes: int

    def may_send_body(self, environ: Environ, /) -> bool:
        """Return True if the body of a request is to be received."""


class Progress(enum.Enum):
    """The progress of an incomplete request since the last call of `take_progress`."""

    HEAD_BEGAN = enum.auto()
    BODY_BEGAN = enum.auto()
    CONTINUE_AWAITED = enum.auto()
    """The client waits for a 100 before it sends the body."""


class RequestReader:
    """Reads the requests of one connection; ``template`` begins their environs.

    ``buffer`` has the bytes that have arrived and are not parsed yet, ``request`` is the request
    whose body is arriving, and ``request_size`` the size of the last request in bytes.
    """

    __slots__ = (
        "_body",
        "_parser",
        "_policy",
        "_progress",
        "_scanned",
        "_template",
        "buffer",
        "request",
        "request_size",
    )

    def __init__(self, policy: BodyPolicy, parser: HeadParser, template: Environ) -> None:
        self._policy = policy
        self._parser = parser
        self._template = template
        self._body: BodyBuffer | ChunkedBody | None = None
        self._scanned = 0  # the buffer is known to end no head before this
        self.buffer: bytes | bytearray = b""
        self.request: Request | None = None
        self.request_size = 0
        self._progress: Progress | None = None

    @property
    def peer(self) -> str:
        """The address of the client, for the log."""
        address: str = self._template["REMOTE_ADDR"]
        return address

    @property
    def has_begun(self) -> bool:
        """True if a request has begun to arrive."""
        # An empty line before a request is ignored, whether or not a request follows.
        return bool(self.request or self.buffer not in (b"", _EMPTY_LINE))

    @property
    def has_more(self) -> bool:
        """True if `receive` stopped before the end of the buffer, to be fair to others."""
        return isinstance(self._body, ChunkedBody) and self._body.has_more

    @property
    def body_size(self) -> int:
        """The bytes of memory that hold what has arrived of the body of ``request``."""
        if self._body is None:
            return 0
        return (self._body.data if isinstance(self._body, ChunkedBody) else self._body).held

    def take_progress(self) -> Progress | None:
        """Return the progress since the last call; None if only more of the same has arrived."""
        progress, self._progress = self._progress, None
        return progress

    @property
    def room(self) -> memoryview | None:
        """The memory to receive more of the body into, where it has been set aside."""
        if self.buffer or not isinstance(self._body, BodyBuffer):
            return None
        room = self._body.room
        return None if room is None else room[:_ROOM_BYTES]

    def fill(self, size: int) -> None:
        """Count ``size`` bytes that were received into `room`."""
        assert isinstance(self._body, BodyBuffer)
        self._body.fill(size)

    def append(self, data: bytes) -> None:
        """Append ``data`` to a buffer that is not empty."""
        if isinstance(self.buffer, bytes):
            self.buffer = bytearray(self.buffer)
        self.buffer += data

    def drop(self) -> None:
        """Discard what has arrived."""
        self.request = self._body = None
        self.buffer = b""
        self.request_size = 0

    def unread(self) -> Request:
        """Return a placeholder for a request whose head was not read completely."""
        return self._parser.unread(self._template)

    def max_to_read(self) -> int:
        """Return how many bytes to read at once: the rest of the body, up to a limit."""
        if self._body is None or isinstance(self._body, ChunkedBody):
            return READ_BYTES
        assert self.request is not None
        assert self.request.head.length is not None
        missing = self.request.head.length - len(self._body)
        return min(_BODY_BYTES, missing + READ_BYTES)

    def receive(self) -> Request | None:
        """Return the next request with its body, or None if it is not complete.

        Raises `Rejection` if it can't be served, whatever follows.
        """
        request = self.request or self._receive_head()
        if request is None:
            return None
        length = request.head.length
        if length == 0:
            body: Body = b""
        elif self._body is None and length is not None and length <= len(self.buffer):
            body = self._take_whole_body(length)
        elif self._body is not None or self._begin_body(request):
            received = self._receive_body(request)
            if received is None:
                return None
            body, length = received, received.getbuffer().nbytes
        else:
            body, length = b"", 0
        request.set_body(body, length)
        self.request = self._body = None
        self.request_size += length
        return request

    def _receive_head(self) -> Request | None:
        buffer = self.buffer
        # One empty line before a request is ignored (RFC 9112, section 2.2).
        start = 2 if buffer.startswith(_EMPTY_LINE) else 0
        end = buffer.find(b"\r\n\r\n", max(start, self._scanned - 3))
        if end < 0:
            if buffer:
                self._check_part_of_head(start)
            return None
        self._scanned = 0
        self.buffer = buffer[end + 4 :]
        self.request_size = end
        request = self._parser.parse(bytes(buffer[start:end]), self._template)
        self.request = request
        return request

    def _check_part_of_head(self, start: int) -> None:
        """Raise `Rejection` if the buffer can't become a valid head, whatever follows."""
        buffer, parser = self.buffer, self._parser
        if self._scanned == 0:
            self._progress = Progress.HEAD_BEGAN
        is_long = len(buffer) - start - 2 > parser.line_size > 0
        if is_long and buffer.find(b"\r\n", start, start + parser.line_size + 2) < 0:
            raise line_too_long(parser.line_size)
        if len(buffer) > parser.head_size:
            raise Rejection(
                431,
                f"The request line and headers exceed the limit of {parser.head_size:,} bytes "
                "(limit_request_fields).",
                "limit_request_fields",
            )
        at = buffer.find(b"\n", self._scanned)
        while at >= 0:
            if buffer[at - 1 : at] != b"\r":
                raise Rejection(400, "A line of the head ends with LF instead of CRLF.")
            at = buffer.find(b"\n", at + 1)
        self._scanned = len(buffer)

    def _take_whole_body(self, length: int) -> bytes:
        """Return a body that has arrived with its head, as most do."""
        self._check_length(length)
        buffer = self.buffer
        self.buffer = buffer[length:]
        return bytes(buffer[:length])

    def _check_length(self, length: int) -> None:
        if length > self._policy.max_body_bytes:
            raise body_too_large(self._policy.max_body_bytes, length)

    def _begin_body(self, request: Request) -> bool:
        """Prepare to receive the body; return False if nothing more is to be received."""
        policy, parser = self._policy, self._parser
        if request.head.length is None:
            self._body = ChunkedBody(
                policy.max_body_bytes, parser.field_size, _TRAILERS_LIMIT, parser.check_trailers
            )
        else:
            self._check_length(request.head.length)
            self._body = BodyBuffer(request.head.length)
        direct = request.head.direct
        if not (direct and direct.may_send_body) and not policy.may_send_body(request.environ):
            request.keep_alive = False
            self.buffer = b""
            return False
        awaited = request.head.expects_continue and not self.buffer
        self._progress = Progress.CONTINUE_AWAITED if awaited else Progress.BODY_BEGAN
        return True

    def _receive_body(self, request: Request) -> io.BytesIO | None:
        """Return the body if it is complete, else None."""
        body, buffer = self._body, self.buffer
        if isinstance(body, ChunkedBody):
            if isinstance(buffer, bytes):
                buffer = self.buffer = bytearray(buffer)
            if not body.feed(buffer):
                return None
            self._progress = None
            return body.data.stream()
        assert body is not None
        assert request.head.length is not None
        missing = request.head.length - len(body)
        if buffer:
            self.buffer = buffer[missing:]
            if missing:
                body.append(buffer[:missing])
        return body.stream() if len(buffer) >= missing else None
