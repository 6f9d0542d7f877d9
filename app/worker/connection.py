"""One connection of a client, which is read and written without ever blocking.

A connection is in one of these states:

- idle: nothing of a request has arrived;
- receiving: ``_reader`` has a part of a request;
- queued: it is in the worker's queue with a complete request (``_whole``), a ``_task``, or the rest
  of what it was doing; or in the queue of calls, with a request that takes long;
- running: a thread makes the call of the application (``_is_running``). Nothing is read meanwhile,
  and a client that leaves changes nothing: the call goes on, and its answer can't be sent;
- responding: ``_response`` is set, or ``_writer`` has parts that the socket has not taken. Nothing
  is read meanwhile: a client that doesn't read its responses can't send more requests;
- lingering: the last response was sent, and what the client still sends is discarded. Closing with
  unread bytes would reset the connection, so that the client might lose that response.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from functools import partial
from math import inf
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLONESHOT, EPOLLOUT
from time import monotonic, time

from .contract import Environ, held_bytes, set_overdue, set_rejection
from .head import HeadParser
from .owner import ConnectionOwner
from .rejection import Rejection
from .request import Request
from .request_queue import QueueEntry
from .request_reader import READ_BYTES, Progress, RequestReader
from .response import Response, ok_lines, rejection_response
from .response_writer import ResponseWriter
from .timestamps import receive_into_with_age, receive_with_age

_SLICE_BYTES = 1 << 20
_SLICE_SECONDS = 0.01
"""After this much of a long response, or this long, other connections go on."""
_LINGER_SECONDS = 2.0
_COUNTED_BYTES = 4096
"""The memory of requests up to this size is not counted while they are queued."""
_SOON = 0.002
"""Seconds. If the sockets were polled this recently, the kernel's arrival times are not needed."""


class Connection(QueueEntry):
    """The connection of a client, owned by ``owner``; ``template`` begins its environs.

    ``held`` is how many bytes of requests and unsent responses it held when that was last computed.
    ``idle_since`` is when it was opened or its last response ended, by the monotonic clock.
    """

    __slots__ = (
        "_closing",
        "_deadline",
        "_ended",
        "_interest",
        "_is_running",
        "_lingering",
        "_owner",
        "_queue",
        "_reader",
        "_response",
        "_sock",
        "_task",
        "_unwatched",
        "_whole",
        "_writer",
        "fd",
        "held",
        "idle_since",
    )

    def __init__(
        self, owner: ConnectionOwner, sock: socket.socket, template: Environ, parser: HeadParser
    ) -> None:
        super().__init__(monotonic())
        self.fd = sock.fileno()
        self.held = 0
        self.idle_since = self.arrived
        self._sock = sock
        # The next bytes may have arrived this long before the sockets were last polled.
        self._unwatched = owner.unaccepted_seconds
        self._owner = owner
        self._reader = RequestReader(owner, parser, template)
        self._queue = owner.queue  # in which its request waits
        self._whole: Request | None = None
        self._response: Response | None = None
        self._is_running = False
        self._writer = ResponseWriter(sock)
        self._task: Callable[[], None] | None = None
        self._ended = False  # the client sends no more
        self._closing = False  # no further request is served
        self._lingering = False
        self._interest = EPOLLIN
        self._deadline = self.idle_since + owner.headers_timeout_seconds
        owner.poller.register(self.fd, EPOLLIN)

    @property
    def is_running(self) -> bool:
        """True if a thread makes the call for its request, and holds the memory of that."""
        return self._is_running

    @property
    def is_idle(self) -> bool:
        """True if no request has begun to arrive and no response is being sent."""
        return not (self._reader.buffer or self._reader.request or self._is_busy)

    @property
    def _is_receiving(self) -> bool:
        return self._reader.has_begun and not self._is_busy

    @property
    def _is_busy(self) -> bool:
        return bool(self._response or self._writer.parts or self._lingering or self.is_queued)

    def on_event(self, events: int) -> None:
        """Read or write, as the socket is ready for."""
        if self.is_queued:
            if self._interest == EPOLLONESHOT and events & (EPOLLHUP | EPOLLERR):
                self.close()  # nobody waits for the call, which has not begun
            return  # the queue will advance it
        if self._is_running:
            return
        if self._interest == EPOLLIN:
            if self._lingering or self.held > READ_BYTES:
                # Connections that send little take precedence.
                self._defer(partial(self._read_since, self._owner.queue.now))
            else:
                self._read()
        elif self._interest == EPOLLOUT:
            if self._response:
                self._owner.queue.defer(self)  # let others go first
            else:
                self.advance()
        else:
            self.close()  # EPOLLHUP or EPOLLERR, which are always reported

    def pass_over(self, seconds: float) -> None:
        """Record that bytes which arrived in the last ``seconds`` have not been read."""
        self._unwatched += seconds

    def advance(self) -> None:
        """Continue the response, or begin the next request: at most one, to be fair to others."""
        if self._task:
            task, self._task = self._task, None
            task()
            return
        try:
            if self._writer.parts and not self._flush():
                return
            if self._response:
                self._continue_response(self._response)
            elif self._closing:
                self._linger()
            elif self._whole:
                self._serve_queued(self._whole)
            elif request := self._reader.receive():
                self._enqueue(request)
            else:
                self._count_part()
                self._await_rest()
        except Rejection as rejection:
            self.reject(rejection)

    def check_deadline(self, now: float) -> None:
        """Queue the end of the connection if its deadline has passed: many may end at once."""
        if not self._is_in_time(now):
            self._defer(self._expire)

    def _expire(self) -> None:
        """Close, or reject a request that arrives too slowly."""
        if self._interest == EPOLLIN and not self._lingering:
            self._read()  # bytes that arrived while the worker was busy are not late
            if self._is_in_time(monotonic()):
                return
        if self._is_receiving:
            self._reject_late()
        else:
            self.close()

    def _reject_late(self) -> None:
        owner = self._owner
        if self._reader.request:
            part, setting, seconds = "body", "body_timeout_seconds", owner.body_timeout_seconds
        else:
            part, setting = "head", "headers_timeout_seconds"
            seconds = owner.headers_timeout_seconds
        detail = f"The {part} did not arrive within {seconds:g} seconds ({setting})."
        self.reject(Rejection(408, detail, setting))

    def _is_in_time(self, now: float) -> bool:
        return now < self._deadline or self.is_queued or self.is_closed

    def leave(self) -> None:
        """End the connection, unless a complete request is being served: the worker stops."""
        if self._is_receiving:
            self.reject(Rejection(503, "The server is shutting down. Send the request again."))
        elif not self._is_busy:
            self.close()

    def abandon(self, rejection: Rejection) -> None:
        """Release the memory of the connection: reject the request, or abort the response."""
        if not self._response and not self._writer.parts and not self._lingering:
            self.reject(rejection)
            return
        peer = self._reader.peer
        rejection.rename_setting(self._owner.setting_names)
        self._owner.warn("Response to ip=%s aborted, unread: %s", peer, rejection.detail)
        self.close()

    def reject(self, rejection: Rejection) -> None:
        """Respond with ``rejection``, and close the connection after that."""
        peer = self._reader.peer
        rejection.rename_setting(self._owner.setting_names)
        self._owner.warn("Invalid request from ip=%s: %s", peer, rejection.detail)
        request = self._reader.request or self._whole or self._reader.unread()
        self._drop()
        if self._owner.delegates_rejections:
            request.set_body(b"", 0)
            set_rejection(request.environ, rejection)
            request.keep_alive = False
            self._serve(request)
            return
        self._closing = True
        self._writer.parts.append(rejection_response(rejection))
        if self._flush():
            self._linger()

    def close(self) -> None:
        """Close the connection now, and drop the rest of the response."""
        self.is_closed = True
        self._writer.clear()
        self._drop()
        self._owner.forget(self.fd)
        self._sock.close()
        if self._response and not self._is_running:  # the thread still makes it
            self._finish()

    def _drop(self) -> None:
        """Discard the request, complete or not."""
        self._whole = self._task = None
        self._reader.drop()
        self._queue.cancel(self)
        self._owner.hold(self.fd, -self.held)
        self.held = 0

    # Reading

    def _read_since(self, seen: float) -> None:
        """Read bytes that epoll reported at the time ``seen``."""
        self._unwatched += self._owner.queue.now - seen
        self._read()

    def _read(self) -> None:
        reader = self._reader
        room = reader.room if reader.request else None
        data = b""
        try:
            if room is None:
                data = self._receive_bytes(reader.max_to_read())
                received = len(data)
            else:
                received = self._receive_into(room)
        except BlockingIOError:
            return
        except OSError:  # reset by the client
            self.close()
            return
        if not received:
            self._ended = True
            self._want(0)
            if self._lingering:
                self.close()
                return
        elif self._lingering:
            if self._owner.queue.now >= self._deadline:
                self.close()
            return
        elif room is not None:
            reader.fill(received)
        elif not reader.buffer:
            reader.buffer = data
        else:
            reader.append(data)
        self.advance()
        if room is None and reader.request and reader.room is not None:
            # Memory was set aside, and much of the rest may have arrived. Others take precedence.
            self._defer(self._read)

    def _receive_bytes(self, most: int) -> bytes:
        """Receive bytes, and set when they arrived, which may be a while ago."""
        unwatched = self._take_unwatched()
        if unwatched < _SOON:
            return self._sock.recv(most)
        data, age = receive_with_age(self._sock, most)
        self._set_arrived(unwatched, age, is_all=len(data) < most)
        return data

    def _receive_into(self, room: memoryview) -> int:
        """Do the same into ``room``, and return how many bytes."""
        unwatched = self._take_unwatched()
        if unwatched < _SOON:
            return self._sock.recv_into(room)
        received, age = receive_into_with_age(self._sock, room)
        self._set_arrived(unwatched, age, is_all=received < len(room))
        return received

    def _take_unwatched(self) -> float:
        """Return for how many seconds bytes may have waited, and count them afresh."""
        self.arrived = self._owner.queue.now
        unwatched = self._owner.unwatched_seconds + self._unwatched
        self._unwatched = 0.0
        return unwatched

    def _set_arrived(self, unwatched: float, age: float, *, is_all: bool) -> None:
        if not is_all:  # the rest may have arrived as early
            self._unwatched = unwatched
        # The clock may have been set, but the bytes arrived since the socket was last polled.
        self.arrived -= min(max(age, 0.0), unwatched)

    def _count_part(self) -> None:
        """Set the deadline of a request that arrives in parts, and count its bytes.

        Raises `Rejection` if all connections together hold too much, and this one the most.
        """
        reader = self._reader
        if not (reader.buffer or reader.request):
            return
        progress = reader.take_progress()
        if progress is Progress.HEAD_BEGAN:
            self._deadline = monotonic() + self._owner.headers_timeout_seconds
        elif progress is not None:
            self._deadline = monotonic() + self._owner.body_timeout_seconds
        if progress is Progress.CONTINUE_AWAITED:
            self._writer.parts.append(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._hold(reader.body_size):
            raise self._owner.too_much_held()

    def _await_rest(self) -> None:
        """Wait for the rest of a request, unless it is late or the client sends no more."""
        if self._reader.has_more:
            self._owner.queue.defer(self)
        elif self._is_receiving and self.arrived > self._deadline:
            self._reject_late()
        elif self._ended:
            self.close()  # the request is incomplete, if there is one
        elif not self._writer.parts or self._flush():
            self._await_bytes()

    def _hold(self, more: int = 0) -> bool:
        """Update the count of held bytes: all connections together could exhaust the memory.

        Return False if they hold too much, and this one the most.
        """
        reader = self._reader
        held = reader.request_size + len(reader.buffer) + self._writer.blocked_bytes + more
        if self._response:
            held += held_bytes(self._response.request.environ)
        more = held - self.held
        self.held = held
        return self._owner.hold(self.fd, more)

    def _await_bytes(self) -> None:
        """Wait for more bytes, with a new timeout if the connection was writing."""
        if self._interest == EPOLLIN:
            return
        owner = self._owner
        if self._reader.request:
            seconds = owner.body_timeout_seconds
        elif self._reader.buffer:
            seconds = owner.headers_timeout_seconds
        else:
            seconds = owner.keepalive_seconds
        self._await(EPOLLIN, seconds)

    # Responding

    def _enqueue(self, request: Request) -> None:
        """Queue a complete request, or have it rejected at once if it would be overdue."""
        owner = self._owner
        direct = request.head.direct
        # The environ is made for none that is answered by a direct call.
        name = None if direct and not direct.takes_long else owner.pool_queue(request.environ)
        queue = self._queue = owner.queue if name is None else owner.calls[name]
        wait = queue.enqueue(self, request, request.body_size)
        if wait is not None:
            set_overdue(request.environ, wait)
            # Closing the connection sends the client to a less loaded worker.
            request.keep_alive = request.keep_alive and not owner.is_behind
            self._serve(request)
            return
        self._whole = request
        if (
            self._reader.request_size + len(self._reader.buffer) > _COUNTED_BYTES
            and not self._hold()
        ):
            raise self._owner.too_much_held()
        if queue is not owner.queue:
            self._pause()
            owner.calls.dispatch()

    def _serve_queued(self, request: Request) -> None:
        self._whole = None
        wait = self._queue.expire(self, request)
        if wait is not None:
            set_overdue(request.environ, wait)
            self._serve(request)
        elif self._queue is not self._owner.queue:
            self._serve(request, in_thread=True)
        elif not self._serve_directly(request):
            self._serve(request)

    def _serve_directly(self, request: Request) -> bool:
        """Serve a request by a direct call; return False if the call must be that of WSGI."""
        direct, body = request.head.direct, request.whole_body
        if direct is None or body is None or self._owner.hooks:  # which want to see a response
            return False
        try:
            answer = direct(body, request.make_environ)
        except BaseException as error:
            self._fail(self._begin_response(request), error)
            return True
        if answer is None:
            return False
        keep_alive = self._may_keep(request)
        self._writer.parts.append(ok_lines(int(time()), keep_alive) + answer)
        self._end(keep_alive=keep_alive)
        return True

    def _serve(self, request: Request, *, in_thread: bool = False) -> None:
        response = self._begin_response(request)
        try:
            if self._owner.hooks:
                self._owner.hooks.before(response)
            if in_thread:
                self._is_running = True
                self._owner.calls.start(self, partial(response.call, self._owner.wsgi))
                return
            response.call(self._owner.wsgi)
            if response.is_complete:
                self._reader.request_size = 0  # the application is done with it
        except BaseException as error:
            self._fail(response, error)
        else:
            self._continue_response(response)

    def _begin_response(self, request: Request) -> Response:
        keep_alive = self._may_keep(request)
        response = self._response = Response(request, self._writer.parts, keep_alive=keep_alive)
        return response

    def _may_keep(self, request: Request) -> bool:
        """Count a request that is served; return True if the connection is kept after it."""
        self._writer.begin_response()
        return self._owner.count_request(is_last=not self._reader.buffer) and request.keep_alive

    def resume(self, error: BaseException | None) -> None:
        """Send the response, for which a thread has made the call; ``error`` is what that raised.

        A connection that was closed meanwhile only finishes it.
        """
        self._is_running = False
        response = self._response
        assert response is not None
        if self.is_closed:
            if error is not None:
                self._log_failure(response.request, error)
            self._finish()
            return
        may_keep = self._owner.may_keep(is_last=not self._reader.buffer)
        response.keep_alive = response.keep_alive and may_keep
        if error is not None:
            self._fail(response, error)
            return
        if response.is_complete:
            self._reader.request_size = 0
        self._continue_response(response)

    def _continue_response(self, response: Response) -> None:
        """Send parts of the response for as long as the socket accepts them."""
        try:
            if response.is_whole:
                response.write_whole()
            elif self._write_parts(response):
                response.finish()
            else:
                return
        except BaseException as error:
            self._fail(response, error)
        else:
            self._end(keep_alive=response.keep_alive)

    def _write_parts(self, response: Response) -> bool:
        """Write parts of the response; return False if others, or the client, must go first."""
        begun, before = monotonic(), response.sent
        while response.write_next():
            # A part must not wait for the next, which may take long. If all parts exist, they are
            # written to the end, so that the application is done with the request.
            if self._writer.parts and not self._flush():
                if self.is_closed or not response.is_complete:
                    return False
            elif response.sent - before > _SLICE_BYTES or monotonic() - begun > _SLICE_SECONDS:
                if self._hold():
                    self._owner.queue.defer(self)
                else:
                    self.abandon(self._owner.too_much_held())
                return False
        return True

    def _fail(self, response: Response, error: BaseException) -> None:
        """Respond with 500 to an exception of the application, or abort a response that has begun.

        That includes `SystemExit`, because the worker has other connections. An exception of the
        worker's own, to end it, is raised again.
        """
        if self._owner.is_ending:
            raise error
        self._log_failure(response.request, error)
        response.keep_alive = False
        if not response.headers_sent:
            response.replace(Rejection(500, "The application failed; see the log of the server."))
        self._end(keep_alive=False)

    def _log_failure(self, request: Request, error: BaseException) -> None:
        self._owner.log.error(
            "Error handling request %s %s", request.method, request.uri, exc_info=error
        )

    def _end(self, *, keep_alive: bool) -> None:
        """Send what is left of a response that is complete, and go on to the next request."""
        self._closing = not keep_alive
        if self._writer.parts:
            self._flush()  # before the application closes its response, which may take long
        if self.is_closed:
            return
        self._finish()
        if self._writer.parts:
            return
        if self._closing:
            self._linger()
        elif self._reader.buffer:
            self._owner.queue.defer(self)
        elif self._ended:
            self.close()
        else:
            self._deadline = self.idle_since + self._owner.keepalive_seconds
            self._want(EPOLLIN)

    def _finish(self) -> None:
        """Let go of the request, and of its response if that is the application's."""
        response, self._response = self._response, None
        self._reader.request_size = 0
        if self.held:
            self._hold()
        if response is not None:
            self._close_response(response)
        # If the next request has arrived, it was its own client that let it wait until now.
        self.idle_since = self.arrived = monotonic()

    def _close_response(self, response: Response) -> None:
        try:
            response.close()
        except BaseException:
            if self._owner.is_ending:
                raise
            self._owner.log.exception("Error closing the response to %s", response.request.uri)
        if self._owner.hooks:
            self._owner.hooks.after(response)

    def _flush(self) -> bool:
        """Send what the socket takes of the response; return True if that was all."""
        writer = self._writer
        was_blocked = writer.blocked_bytes
        try:
            is_all = writer.flush()
        except OSError:  # the client is gone
            self.close()
            return False
        if not is_all:
            self._await_reader()
        elif was_blocked:
            self._hold()
        return is_all

    def _await_reader(self) -> None:
        """Wait until the client reads on."""
        owner = self._owner
        behind = self._writer.seconds_behind(owner.min_send_rate)
        self._await(EPOLLOUT, owner.send_timeout_seconds - behind)
        if not self._hold():
            self.abandon(owner.too_much_held())

    def _defer(self, task: Callable[[], None]) -> None:
        """Queue ``task`` behind the deferred work of other connections."""
        self._task = task
        self._owner.queue.defer(self)

    def _linger(self) -> None:
        """Close the connection when the client has, or after a short time."""
        if self._ended:
            self.close()
            return
        self._lingering = True
        self._reader.buffer = b""
        self._await(EPOLLIN, _LINGER_SECONDS)
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def _pause(self) -> None:
        """Read nothing, and have no deadline, until the call is over: it has its own.

        That the client has left is reported once, or the loop would turn in vain.
        """
        self._deadline = inf
        self._want(EPOLLONESHOT)

    def _await(self, interest: int, seconds: float) -> None:
        """Wait until the socket is ready for ``interest``, for ``seconds`` at most."""
        self._deadline = monotonic() + seconds
        if interest != self._interest:
            self._want(interest)

    def _want(self, interest: int) -> None:
        """Poll the socket for ``interest``, if the client still sends."""
        if self._ended and interest == EPOLLIN:
            interest = 0
        if interest != self._interest:
            self._interest = interest
            self._owner.poller.modify(self.fd, interest)
