"""One connection: bytes in, requests in order, bytes out, and never a wait.

A connection is in one of these states:

- idle: nothing of a request has arrived;
- receiving: ``_buffer`` holds a part of a head, or ``_request`` is set and its body is arriving;
- queued: it has something to do, and waits for its turn;
- answering: ``_answer`` is set, or ``_out`` holds what the socket did not take yet. Nothing is
  read meanwhile, so that a client that doesn't read its answers is not read from either;
- lingering: the last answer was sent, and what the client still sends is thrown away. Closing on
  bytes that were not read would reset the connection, and could take that answer with it.
"""

from __future__ import annotations

import contextlib
import io
import socket
from select import EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING

from app.worker.answer import Answer, Part, refusal_answer
from app.worker.chunks import ChunkedBody
from app.worker.head import Environ, HeadParser, Request, too_long_line
from app.worker.refusal import Refusal

if TYPE_CHECKING:
    from app.worker.worker import KeepAliveWorker

_READ_BYTES = 65536
_TURN_BYTES = 1 << 20
"""After so many bytes of a long answer, the other connections have their turn."""
_LINGER_SECONDS = 2.0
_TRAILERS_LIMIT = 32768


class Connection:
    """The connection of a client, in the care of ``worker``; ``template`` begins its environs."""

    __slots__ = (
        "_answer",
        "_body",
        "_buffer",
        "_closing",
        "_deadline",
        "_ended",
        "_held",
        "_interest",
        "_lingering",
        "_out",
        "_parser",
        "_request",
        "_scanned",
        "_sock",
        "_template",
        "_unread",
        "_worker",
        "fd",
        "is_queued",
    )

    def __init__(
        self, worker: KeepAliveWorker, sock: socket.socket, template: Environ, parser: HeadParser
    ) -> None:
        self.fd = sock.fileno()
        self.is_queued = False
        self._sock = sock
        self._worker = worker
        self._template = template
        self._parser = parser
        self._buffer: bytes | bytearray = b""
        self._scanned = 0  # up to here the buffer is known to end no head
        self._request: Request | None = None
        self._body: bytearray | ChunkedBody | None = None
        self._held = 0  # the bytes that count in the worker's sum of what isn't whole
        self._answer: Answer | None = None
        self._out: list[Part] = []
        self._ended = False  # the client sends no more
        self._closing = False  # no request is taken up any more
        self._unread = False  # the client may be sending what nobody reads
        self._lingering = False
        self._interest = EPOLLIN
        self._deadline = worker.now + worker.keepalive_seconds
        worker.poller.register(self.fd, EPOLLIN)

    def on_event(self, events: int) -> None:
        """Do what the socket is ready for."""
        if self.is_queued:
            return  # its turn comes
        if self._interest == EPOLLIN:
            self._read()
        elif self._interest == EPOLLOUT:
            self.advance()
        else:
            self.close()  # only an end is told without being asked for

    def advance(self) -> None:
        """Go on with the answer, or take up the next request: one at most, to be fair."""
        try:
            if self._out and not self._flush():
                return
            if self._answer:
                self._go_on(self._answer)
            elif self._closing:
                self._linger()
            elif request := self._receive():
                self._serve(request)
            elif self._ended:
                self.close()  # what came is a part of a request at most
            elif not self._out or self._flush():
                self._want(EPOLLIN)
        except Refusal as refusal:
            self._refuse(refusal)

    def check_deadline(self, now: float) -> None:
        """Close, or refuse what arrives too slowly, if the deadline has passed."""
        if now < self._deadline or self.is_queued:
            return
        if self._is_receiving:
            worker = self._worker
            part, seconds = (
                ("body", worker.body_timeout_seconds)
                if self._request
                else ("head", worker.headers_timeout_seconds)
            )
            self._refuse(Refusal(408, f"The {part} did not arrive within {seconds:g} seconds."))
        else:
            self.close()

    def leave(self) -> None:
        """End the connection unless a whole request is being answered: the worker stops."""
        if self._is_receiving:
            self._refuse(Refusal(503, "The server is stopping; send the request again."))
        elif not (self._answer or self._out or self._lingering or self.is_queued):
            self.close()

    def close(self) -> None:
        """Close the connection as it stands; what is left of an answer is given up."""
        self._hold(-self._held)
        self._worker.forget(self)
        self._sock.close()
        self._out.clear()
        self._buffer = b""
        if self._answer:
            self._finish(self._answer)

    @property
    def _is_receiving(self) -> bool:
        return bool(self._buffer or self._request) and not (
            self._answer or self._out or self._lingering or self.is_queued
        )

    # Reading

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # reset by the client
            self.close()
            return
        if not data:
            self._ended = True
            self._want(0)
            if self._lingering:
                self.close()
                return
        elif self._lingering:
            return
        elif not self._buffer:
            self._buffer = data
        else:
            if isinstance(self._buffer, bytes):
                self._buffer = bytearray(self._buffer)
            self._buffer += data
        self.advance()

    def _receive(self) -> Request | None:
        """Take a request from the buffer, if it is whole."""
        request = self._request or self._receive_head()
        if request is None:
            return None
        if request.length == 0:
            body: bytes | None = b""
        else:
            if self._body is None:
                self._begin_body(request)
            body = self._receive_body(request)
        if body is None:
            return None
        request.environ["wsgi.input"] = io.BytesIO(body)
        self._request = self._body = None
        if self._held:
            self._hold(-self._held)
        return request

    def _receive_head(self) -> Request | None:
        buffer = self._buffer
        # One empty line before a request is ignored (RFC 9112, section 2.2).
        start = 2 if buffer.startswith(b"\r\n") else 0
        end = buffer.find(b"\r\n\r\n", max(start, self._scanned - 3))
        if end < 0:
            if buffer:
                self._check_part_of_head(start)
            return None
        self._scanned = 0
        self._buffer = buffer[end + 4 :]
        request = self._parser.parse(bytes(buffer[start:end]), self._template)
        self._request = request
        return request

    def _check_part_of_head(self, start: int) -> None:
        """Raise `Refusal` if the buffer can't become a head, whatever follows."""
        buffer, parser = self._buffer, self._parser
        if self._scanned == 0:
            self._deadline = self._worker.now + self._worker.headers_timeout_seconds
        is_long = len(buffer) - start - 2 > parser.line_size > 0
        if is_long and buffer.find(b"\r\n", start, start + parser.line_size + 2) < 0:
            raise too_long_line(parser.line_size)
        if len(buffer) > parser.head_size:
            raise Refusal(431, f"The head is larger than {parser.head_size} bytes.")
        at = buffer.find(b"\n", self._scanned)
        while at >= 0:
            if buffer[at - 1 : at] != b"\r":
                raise Refusal(400, "A line of the head ends with LF alone.")
            at = buffer.find(b"\n", at + 1)
        self._scanned = len(buffer)
        self._hold(len(buffer) - self._held)

    def _begin_body(self, request: Request) -> None:
        worker, parser = self._worker, self._parser
        if request.length is None:
            self._body = ChunkedBody(
                worker.max_body_bytes, parser.field_size, _TRAILERS_LIMIT, parser.check_trailers
            )
        elif request.length > worker.max_body_bytes:
            raise Refusal(413, f"The body is larger than {worker.max_body_bytes} bytes.")
        else:
            self._body = bytearray()
        self._deadline = worker.now + worker.body_timeout_seconds
        if request.expects_continue and not self._buffer:
            self._out.append(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _receive_body(self, request: Request) -> bytes | None:
        """Give the body once it is whole."""
        body, buffer = self._body, self._buffer
        if isinstance(body, ChunkedBody):
            if isinstance(buffer, bytes):
                buffer = self._buffer = bytearray(buffer)
            if body.feed(buffer):
                return bytes(body.data)
            arrived = len(body.data) + len(buffer)
        else:
            assert body is not None
            assert request.length is not None
            missing = request.length - len(body)
            self._buffer = buffer[missing:]
            if len(buffer) >= missing:
                last = bytes(buffer[:missing])
                return bytes(body) + last if body else last
            body += buffer
            arrived = len(body)
        self._hold(arrived - self._held)
        return None

    def _hold(self, more: int) -> None:
        """Count what isn't whole: many clients together could fill the memory with it."""
        self._held += more
        self._worker.held += more
        if more > 0 and self._worker.held > self._worker.most_held_bytes:
            raise Refusal(503, "Too many requests are arriving at once; send it again later.")

    # Answering

    def _serve(self, request: Request) -> None:
        may_keep = self._worker.count_request(is_last=not self._buffer)
        answer = self._answer = Answer(
            request, self._out, keep_alive=may_keep and request.keep_alive
        )
        try:
            if self._worker.hooks:
                self._worker.hooks.before(answer)
            answer.call(self._worker.wsgi)
        except Exception:
            self._fail(answer)
        else:
            self._go_on(answer)

    def _go_on(self, answer: Answer) -> None:
        """Take parts of the answer for as long as the socket takes them."""
        before = answer.sent
        try:
            while answer.take():
                # A part may not wait for the next, which may be long in the making.
                if self._out and not answer.is_whole:
                    if not self._flush():
                        return
                    if answer.sent - before > _TURN_BYTES:
                        self._worker.queue(self)
                        return
            answer.end()
        except Exception:
            self._fail(answer)
        else:
            self._end(answer)

    def _fail(self, answer: Answer) -> None:
        """Answer 500 for an application that raised, or break off what was begun."""
        request = answer.request
        self._worker.log.exception("Error handling request %s %s", request.method, request.uri)
        answer.keep_alive = False
        if not answer.headers_sent:
            answer.replace(Refusal(500, "The application failed; its log says why."))
        self._end(answer)

    def _end(self, answer: Answer) -> None:
        self._finish(answer)
        self._closing = not answer.keep_alive
        self._unread |= self._closing and bool(self._buffer)
        if self._out and not self._flush():
            return
        if self._closing:
            self._linger()
        elif self._buffer:
            self._worker.queue(self)
        elif self._ended:
            self.close()
        else:
            self._deadline = self._worker.now + self._worker.keepalive_seconds
            if self._interest != EPOLLIN:
                self._want(EPOLLIN)

    def _finish(self, answer: Answer) -> None:
        self._answer = None
        try:
            answer.close()
        except Exception:
            self._worker.log.exception("Error closing the answer to %s", answer.request.uri)
        if self._worker.hooks:
            self._worker.hooks.after(answer)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer ``refusal``, and take up nothing more on this connection."""
        peer = self._template["REMOTE_ADDR"]
        self._worker.log.warning("Invalid request from ip=%s: %s", peer, refusal.detail)
        request, self._request, self._body = self._request, None, None
        self._buffer = b""
        self._hold(-self._held)
        self._unread = True
        if request and self._worker.asks_application:
            request.environ["wsgi.input"] = io.BytesIO()
            request.environ["app.worker.refusal"] = refusal
            request.keep_alive = False
            self._serve(request)
            return
        self._closing = True
        self._out.append(refusal_answer(refusal))
        if self._flush():
            self._linger()

    def _flush(self) -> bool:
        """Send what waits, as far as the socket takes it; tell whether that was all."""
        out = self._out
        try:
            while out:
                sent = self._sock.send(out[0]) if len(out) == 1 else self._sock.sendmsg(out[:64])
                while out and sent >= len(out[0]):
                    sent -= len(out.pop(0))
                if sent:
                    out[0] = memoryview(out[0])[sent:]
        except BlockingIOError:
            self._deadline = self._worker.now + self._worker.send_timeout_seconds
            self._want(EPOLLOUT)
            return False
        except OSError:  # the client is gone
            self.close()
            return False
        return True

    def _linger(self) -> None:
        """Close; where bytes of the client are unread, only once it has closed, or soon."""
        if self._ended or not self._unread:
            self.close()
            return
        self._lingering = True
        self._buffer = b""
        self._deadline = self._worker.now + _LINGER_SECONDS
        self._want(EPOLLIN)
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def _want(self, interest: int) -> None:
        if self._ended and interest == EPOLLIN:
            interest = 0
        if interest != self._interest:
            self._interest = interest
            self._worker.poller.modify(self.fd, interest)
