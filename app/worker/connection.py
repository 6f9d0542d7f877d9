"""One connection: bytes in, requests in order, bytes out, and never a wait.

A connection is in one of these states:

- idle: nothing of a request has arrived;
- receiving: ``_buffer`` holds a part of a head, or ``_request`` is set and its body is arriving;
- queued: it has something to do, a whole request in ``_whole`` maybe, and waits for its turn, in
  which it does its ``_task``, or else goes on where it was;
- answering: ``_answer`` is set, or ``_out`` holds what the socket did not take yet. Nothing is
  read meanwhile, so that a client that doesn't read its answers is not read from either;
- lingering: the last answer was sent, and what the client still sends is thrown away. Closing on
  bytes that were not read would reset the connection, and could take that answer with it.
"""

from __future__ import annotations

import contextlib
import io
import socket
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from select import EPOLLIN, EPOLLOUT
from time import monotonic, time
from typing import TYPE_CHECKING

from .answer import Answer, Part, refusal_answer
from .body import BodyBuffer
from .chunks import ChunkedBody
from .environ import REFUSAL
from .head import Environ, HeadParser, Request, too_long_line
from .refusal import Refusal

if TYPE_CHECKING:
    from .worker import KeepAliveWorker

_READ_BYTES = 65536
_BODY_BYTES = 131072
"""So much of a body is read in one turn. Larger pieces leave holes in the heap where they were."""
_TURN_BYTES = 1 << 20
_TURN_SECONDS = 0.01
"""After so much of a long answer, or so long, the other connections have their turn."""
_LINGER_SECONDS = 2.0
_COUNTED_BYTES = 4096
"""A request of no more than that isn't counted while it waits for its turn."""
_TRAILERS_LIMIT = 32768
_EMPTY_LINE = b"\r\n"

SO_TIMESTAMPNS = 35
"""Has the kernel tell when bytes arrived (socket(7), and <asm-generic/socket.h>)."""
_TIMESTAMP = struct.Struct("@ll")
_TIMESTAMP_SPACE = socket.CMSG_SPACE(_TIMESTAMP.size)
_SOON = 0.002
"""Who looks so often needn't ask the kernel when bytes arrived."""


class Connection:
    """The connection of a client, in the care of ``worker``; ``template`` begins its environs.

    ``held`` is how many bytes it was last known to keep, of requests and of answers that were not
    sent; ``idle_since`` is when it was last opened or had its last answer, ``arrived`` when
    the last bytes came, both by the monotonic clock. ``kind`` and ``cost`` are notes of `Turns` on
    the request that waits.
    """

    __slots__ = (
        "_answer",
        "_blocked_at",
        "_body",
        "_buffer",
        "_closing",
        "_deadline",
        "_ended",
        "_interest",
        "_lingering",
        "_out",
        "_parser",
        "_request",
        "_request_size",
        "_scanned",
        "_sock",
        "_taken",
        "_task",
        "_template",
        "_unsent",
        "_unwatched",
        "_waited",
        "_whole",
        "_worker",
        "arrived",
        "cost",
        "fd",
        "held",
        "idle_since",
        "is_closed",
        "is_queued",
        "kind",
    )

    def __init__(
        self, worker: KeepAliveWorker, sock: socket.socket, template: Environ, parser: HeadParser
    ) -> None:
        self.fd = sock.fileno()
        self.held = 0
        self.idle_since = self.arrived = monotonic()
        self.is_closed = False
        self.is_queued = False
        self.kind: int | None = None
        self.cost = 0.0
        self._sock = sock
        # So long before the worker last looked, what is read next may have come.
        self._unwatched = worker.unaccepted_seconds
        self._worker = worker
        self._template = template
        self._parser = parser
        self._buffer: bytes | bytearray = b""
        self._scanned = 0  # up to here the buffer is known to end no head
        self._request: Request | None = None
        self._request_size = 0  # of the one that is received, waits or is answered
        self._body: BodyBuffer | ChunkedBody | None = None
        self._whole: Request | None = None
        self._answer: Answer | None = None
        self._out: deque[Part] = deque()
        self._unsent = 0  # what waits in it for the client, with what was sent of its first part
        self._blocked_at = 0.0  # since when it waits
        self._waited = 0.0  # how long the client has kept this answer waiting,
        self._taken = 0  # and what it took after it had
        self._task: Callable[[], None] | None = None
        self._ended = False  # the client sends no more
        self._closing = False  # no request is taken up any more
        self._lingering = False
        self._interest = EPOLLIN
        self._deadline = self.idle_since + worker.headers_timeout_seconds
        worker.poller.register(self.fd, EPOLLIN)

    @property
    def is_idle(self) -> bool:
        """Whether the client has everything it asked for, and asks for nothing."""
        return not (self._buffer or self._request or self._is_busy)

    @property
    def _is_receiving(self) -> bool:
        # An empty line before a request is ignored, be there a request or not.
        begun = self._request or self._buffer not in (b"", _EMPTY_LINE)
        return bool(begun) and not self._is_busy

    @property
    def _is_busy(self) -> bool:
        return bool(self._answer or self._out or self._lingering or self.is_queued)

    def on_event(self, events: int) -> None:
        """Do what the socket is ready for."""
        if self.is_queued:
            return  # its turn comes
        if self._interest == EPOLLIN:
            if self._lingering or self.held > _READ_BYTES:
                # Those who send little come first.
                self._queue(partial(self._read_since, self._worker.turns.now))
            else:
                self._read()
        elif self._interest == EPOLLOUT:
            if self._answer:
                self._worker.turns.queue(self)  # more is to be made, which others come before
            else:
                self.advance()
        else:
            self.close()  # only an end is told without being asked for

    def pass_over(self, seconds: float) -> None:
        """Note that what came in the last ``seconds`` is not looked at yet."""
        self._unwatched += seconds

    def advance(self) -> None:
        """Go on with the answer, or take up the next request: one at most, to be fair."""
        if self._task:
            task, self._task = self._task, None
            task()
            return
        try:
            if self._out and not self._flush():
                return
            if self._answer:
                self._go_on(self._answer)
            elif self._closing:
                self._linger()
            elif self._whole:
                self._take_turn(self._whole)
            elif request := self._receive():
                self._line_up(request)
            elif isinstance(self._body, ChunkedBody) and self._body.has_more:
                self._worker.turns.queue(self)
            elif self._is_receiving and self.arrived > self._deadline:
                self._refuse_late()
            elif self._ended:
                self.close()  # what came is a part of a request at most
            elif not self._out or self._flush():
                self._await_bytes()
        except Refusal as refusal:
            self.refuse(refusal)

    def check_deadline(self, now: float) -> None:
        """Queue the end of the connection, if its deadline has passed: many may end at once."""
        if not self._is_in_time(now):
            self._queue(self._expire)

    def _expire(self) -> None:
        """Close, or refuse what arrives too slowly."""
        if self._interest == EPOLLIN and not self._lingering:
            self._read()  # what came while the worker was busy is not late
            if self._is_in_time(monotonic()):
                return
        if self._is_receiving:
            self._refuse_late()
        else:
            self.close()

    def _refuse_late(self) -> None:
        worker = self._worker
        part, seconds = (
            ("body", worker.body_timeout_seconds)
            if self._request
            else ("head", worker.headers_timeout_seconds)
        )
        self.refuse(Refusal(408, f"The {part} did not arrive within {seconds:g} seconds."))

    def _is_in_time(self, now: float) -> bool:
        return now < self._deadline or self.is_queued or self.is_closed

    def leave(self) -> None:
        """End the connection unless a whole request is being answered: the worker stops."""
        if self._is_receiving:
            self.refuse(Refusal(503, "The server is stopping; send the request again."))
        elif not self._is_busy:
            self.close()

    def give_up(self, refusal: Refusal) -> None:
        """Release what is held: refuse the request, or break off the answer."""
        if not self._answer and not self._out and not self._lingering:
            self.refuse(refusal)
            return
        peer = self._template["REMOTE_ADDR"]
        self._worker.warn("An answer that ip=%s did not read is given up: %s", peer, refusal.detail)
        self.close()

    def refuse(self, refusal: Refusal) -> None:
        """Answer ``refusal``, and take up nothing more on this connection."""
        peer = self._template["REMOTE_ADDR"]
        self._worker.warn("Invalid request from ip=%s: %s", peer, refusal.detail)
        request = self._request or self._whole or self._parser.unread(self._template)
        self._drop()
        if self._worker.asks_application:
            request.environ["wsgi.input"] = io.BytesIO()
            request.environ[REFUSAL] = refusal
            request.keep_alive = False
            self._serve(request)
            return
        self._closing = True
        self._out.append(refusal_answer(refusal))
        if self._flush():
            self._linger()

    def close(self) -> None:
        """Close the connection as it stands; what is left of an answer is given up."""
        self.is_closed = True
        self._out.clear()
        self._unsent = 0
        self._drop()
        self._worker.forget(self)
        self._sock.close()
        if self._answer:
            self._finish(self._answer)

    def _drop(self) -> None:
        """Forget what has arrived of a request."""
        self._request = self._body = self._whole = self._task = None
        self._buffer = b""
        self._request_size = 0
        self.kind = None  # if it waits, its turn won't tell what such requests take
        self._worker.hold(self, -self.held)
        self.held = 0

    # Reading

    def _read_since(self, seen: float) -> None:
        """Read what was seen to be there a while ago."""
        self._unwatched += self._worker.turns.now - seen
        self._read()

    def _read(self) -> None:
        try:
            data = self._receive_bytes(self._most_to_read())
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
            if self._worker.turns.now >= self._deadline:
                self.close()
            return
        elif not self._buffer:
            self._buffer = data
        else:
            if isinstance(self._buffer, bytes):
                self._buffer = bytearray(self._buffer)
            self._buffer += data
        self.advance()

    def _most_to_read(self) -> int:
        """Return how many bytes to read at once: of a body as many as there are, up to a bound."""
        if self._body is None or isinstance(self._body, ChunkedBody):
            return _READ_BYTES
        assert self._request is not None
        assert self._request.length is not None
        missing = self._request.length - len(self._body)
        return min(_BODY_BYTES, missing + _READ_BYTES)

    def _receive_bytes(self, most: int) -> bytes:
        """Take what the socket has, and note when it came: nobody looked for a while, maybe."""
        worker = self._worker
        self.arrived = worker.turns.now
        unwatched = worker.unwatched_seconds + self._unwatched
        self._unwatched = 0.0
        if unwatched < _SOON:
            return self._sock.recv(most)
        data, fields, _, _ = self._sock.recvmsg(most, _TIMESTAMP_SPACE)
        if len(data) == most:  # the rest came as long ago, maybe
            self._unwatched = unwatched
        for level, kind, value in fields:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = _TIMESTAMP.unpack(value)
                ago = time() - seconds - nanoseconds / 1e9
                # That clock may have been set meanwhile; but it did come while nobody looked.
                self.arrived -= min(max(ago, 0.0), unwatched)
        return data

    def _receive(self) -> Request | None:
        """Take a request from the buffer, if it is whole."""
        request = self._request or self._receive_head()
        if request is None:
            return None
        if request.length == 0:
            body: bytes | None = b""
        elif self._body is None and not self._begin_body(request):
            body = b""
        else:
            body = self._receive_body(request)
        if body is None:
            return None
        request.environ["wsgi.input"] = io.BytesIO(body)
        self._request = self._body = None
        self._request_size += len(body)
        return request

    def _receive_head(self) -> Request | None:
        buffer = self._buffer
        # One empty line before a request is ignored (RFC 9112, section 2.2).
        start = 2 if buffer.startswith(_EMPTY_LINE) else 0
        end = buffer.find(b"\r\n\r\n", max(start, self._scanned - 3))
        if end < 0:
            if buffer:
                self._check_part_of_head(start)
            return None
        self._scanned = 0
        self._buffer = buffer[end + 4 :]
        self._request_size = end
        request = self._parser.parse(bytes(buffer[start:end]), self._template)
        self._request = request
        return request

    def _check_part_of_head(self, start: int) -> None:
        """Raise `Refusal` if the buffer can't become a head, whatever follows."""
        buffer, parser = self._buffer, self._parser
        if self._scanned == 0:
            self._deadline = monotonic() + self._worker.headers_timeout_seconds
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
        self._hold_part(0)

    def _begin_body(self, request: Request) -> bool:
        """Get ready for the body; return False if it is not to be sent, and nothing after it."""
        worker, parser = self._worker, self._parser
        if request.length is None:
            self._body = ChunkedBody(
                worker.max_body_bytes, parser.field_size, _TRAILERS_LIMIT, parser.check_trailers
            )
        elif request.length > worker.max_body_bytes:
            raise Refusal(413, f"The body is larger than {worker.max_body_bytes} bytes.")
        else:
            self._body = BodyBuffer()
            if len(self._buffer) >= request.length:
                return True
        if not worker.may_send_body(request.environ):
            request.keep_alive = False
            self._buffer = b""
            return False
        self._deadline = monotonic() + worker.body_timeout_seconds
        if request.expects_continue and not self._buffer:
            self._out.append(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _receive_body(self, request: Request) -> bytes | None:
        """Give the body once it is whole."""
        body, buffer = self._body, self._buffer
        if isinstance(body, ChunkedBody):
            if isinstance(buffer, bytes):
                buffer = self._buffer = bytearray(buffer)
            if body.feed(buffer):
                return body.data.getvalue()
            arrived = len(body.data)
        else:
            assert body is not None
            assert request.length is not None
            missing = request.length - len(body)
            self._buffer = buffer[missing:]
            if len(buffer) >= missing:
                last = buffer[:missing]
                if not body:
                    return bytes(last)
                body.append(last)
                return body.getvalue()
            body.append(buffer)
            arrived = len(body)
        self._hold_part(arrived)
        return None

    def _hold_part(self, body: int) -> None:
        """Count what has come of a request, ``body`` bytes of its body among it.

        Raises `Refusal` if all connections hold too much, and this one the most of it.
        """
        if not self._hold(body):
            raise self._worker.too_much_held()

    def _hold(self, more: int = 0) -> bool:
        """Count what is kept: many clients together could fill the memory with it.

        Return False if all connections hold too much, and this one the most of it.
        """
        held = self._request_size + len(self._buffer) + self._unsent + more
        if self._answer:
            held += self._answer.held
        more = held - self.held
        self.held = held
        return self._worker.hold(self, more)

    def _await_bytes(self) -> None:
        """Wait for more, which has as long as it had before the socket was waited for to send."""
        if self._interest == EPOLLIN:
            return
        worker = self._worker
        if self._request:
            seconds = worker.body_timeout_seconds
        elif self._buffer:
            seconds = worker.headers_timeout_seconds
        else:
            seconds = worker.keepalive_seconds
        self._await(EPOLLIN, seconds)

    # Answering

    def _line_up(self, request: Request) -> None:
        """Have a whole request wait for its turn, or be refused if that will be too late."""
        body = request.environ["wsgi.input"].getbuffer().nbytes
        worker = self._worker
        if not worker.turns.line_up(self, request.environ, body):
            # With its connection closed, who sent it comes to a worker with less to do.
            request.keep_alive = request.keep_alive and not worker.is_behind
            self._serve(request)
            return
        self._whole = request
        if self._request_size + len(self._buffer) > _COUNTED_BYTES and not self._hold():
            raise self._worker.too_much_held()

    def _take_turn(self, request: Request) -> None:
        self._whole = None
        self._worker.turns.come_to(self, request.environ)
        self._serve(request)

    def _serve(self, request: Request) -> None:
        self._waited = self._taken = 0
        may_keep = self._worker.count_request(is_last=not self._buffer)
        answer = self._answer = Answer(
            request, self._out, keep_alive=may_keep and request.keep_alive
        )
        try:
            if self._worker.hooks:
                self._worker.hooks.before(answer)
            answer.call(self._worker.wsgi)
            if answer.is_made:
                self._request_size = 0  # the application is done with it
        except BaseException as error:
            self._fail(answer, error)
        else:
            self._go_on(answer)

    def _go_on(self, answer: Answer) -> None:
        """Take parts of the answer for as long as the socket takes them."""
        begun, before = monotonic(), answer.sent
        try:
            while answer.take():
                # A part may not wait for the next, which may be long in the making. Those that are
                # there already are taken, so that the application is done with the request.
                if self._out and not self._flush():
                    if self.is_closed or not answer.is_made:
                        return
                elif answer.sent - before > _TURN_BYTES or monotonic() - begun > _TURN_SECONDS:
                    if self._hold():
                        self._worker.turns.queue(self)
                    else:
                        self.give_up(self._worker.too_much_held())
                    return
            answer.end()
        except BaseException as error:
            self._fail(answer, error)
        else:
            self._end(answer)

    def _fail(self, answer: Answer, error: BaseException) -> None:
        """Answer 500 for an application that raised, or break off what was begun.

        Whatever it raised, even `SystemExit`: others are served here, too. Raises again what the
        worker itself raised to end.
        """
        if self._worker.is_ending:
            raise error
        request = answer.request
        self._worker.log.exception("Error handling request %s %s", request.method, request.uri)
        answer.keep_alive = False
        if not answer.headers_sent:
            answer.replace(Refusal(500, "The application failed; its log says why."))
        self._end(answer)

    def _end(self, answer: Answer) -> None:
        self._closing = not answer.keep_alive
        if self._out:
            self._flush()  # before the application does what it has to do after its answer
        if self.is_closed:
            return
        self._finish(answer)
        if self._out:
            return
        if self._closing:
            self._linger()
        elif self._buffer:
            self._worker.turns.queue(self)
        elif self._ended:
            self.close()
        else:
            self._await(EPOLLIN, self._worker.keepalive_seconds)

    def _finish(self, answer: Answer) -> None:
        self._answer = None
        self._request_size = 0
        if self.held:
            self._hold()
        try:
            answer.close()
        except BaseException:
            if self._worker.is_ending:
                raise
            self._worker.log.exception("Error closing the answer to %s", answer.request.uri)
        if self._worker.hooks:
            self._worker.hooks.after(answer)
        # The next request, if it is here already, waited for its own client to read till now.
        self.idle_since = self.arrived = monotonic()

    def _flush(self) -> bool:
        """Send what waits, as far as the socket takes it; tell whether that was all."""
        out = self._out
        taken = 0
        try:
            while out:
                if len(out) == 1:
                    sent = self._sock.send(out[0])
                else:
                    sent = self._sock.sendmsg(list(islice(out, 64)))
                taken += sent
                while out and sent >= len(out[0]):
                    sent -= len(out.popleft())
                if sent:
                    out[0] = memoryview(out[0])[sent:]
        except BlockingIOError:
            self._await_reader(taken)
            return False
        except OSError:  # the client is gone
            self.close()
            return False
        if self._unsent:
            self._note_wait(taken)
            self._unsent = 0
            self._hold()
        return True

    def _await_reader(self, taken: int) -> None:
        """Wait until the client reads on, which has taken so many bytes just now."""
        worker = self._worker
        if self._unsent:
            self._note_wait(taken)
        self._blocked_at = monotonic()
        # However often it reads a little: what it is too slow for is not kept for it.
        late = max(0.0, self._waited - self._taken / worker.least_send_rate)
        self._await(EPOLLOUT, worker.send_timeout_seconds - late)
        first = self._out[0]
        self._unsent = sum(map(len, self._out))
        if isinstance(first, memoryview):
            self._unsent += memoryview(first.obj).nbytes - len(first)
        if not self._hold():
            self.give_up(self._worker.too_much_held())

    def _note_wait(self, taken: int) -> None:
        self._waited += monotonic() - self._blocked_at
        self._taken += taken

    def _queue(self, task: Callable[[], None]) -> None:
        """Queue ``task`` behind what others go on with."""
        self._task = task
        self._worker.turns.queue(self)

    def _linger(self) -> None:
        """Close once the client has, or soon."""
        if self._ended:
            self.close()
            return
        self._lingering = True
        self._buffer = b""
        self._await(EPOLLIN, _LINGER_SECONDS)
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def _await(self, interest: int, seconds: float) -> None:
        """Wait until the socket is ready for ``interest``, for ``seconds`` at most."""
        self._deadline = monotonic() + seconds
        self._want(interest)

    def _want(self, interest: int) -> None:
        if self._ended and interest == EPOLLIN:
            interest = 0
        if interest != self._interest:
            self._interest = interest
            self._worker.poller.modify(self.fd, interest)
