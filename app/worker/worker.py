"""The worker class and its event loop: one thread polls all connections and serves them.

Only the calls for requests that take long are made in other threads.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Mapping
from math import inf
from operator import attrgetter
from select import EPOLLIN
from time import monotonic
from types import FrameType
from typing import Any

from gunicorn.workers.base import Worker

from .acceptor import Acceptor
from .call_queue import CallQueues
from .connection import Connection
from .contract import DirectCall, Environ
from .files import connections_that_fit
from .heartbeat import report_alive_at
from .hooks import Hooks
from .load_table import LoadTable
from .pool import CallPool
from .rejection import Rejection
from .request import Request
from .request_queue import QueueEntry, RequestQueue
from .response import Application

_DRAIN_SECONDS = 2.0
"""Seconds for which a worker that stops waits for further requests on open connections."""
_SURELY_IDLE_SECONDS = 1.0
"""The next request of a connection that has been idle for less may be under way."""
_SERVING_RATIO = 10
"""While requests wait, serving takes this many times as long as reading did, within the bounds
below: clients that are rejected and retry at once can't starve those that are served."""
_MIN_SERVING_SECONDS, _MAX_SERVING_SECONDS = 0.01, 0.03
_READING_SECONDS = 0.005
"""Seconds for which sockets are read before the queue is served."""
_DEFERRED_SECONDS = 0.002
"""Seconds for which deferred work goes on, while no request waits, before the sockets are
polled."""
_MAX_WARNINGS = 20
"""The most warnings about clients that are logged per heartbeat, which is at most a second."""
_RELEASE_BYTES = 32 << 20
"""Memory is released only if more bytes than this were held at the peak."""
_SIGNAL_SECONDS = 0.5
"""When several workers are stopped, all of them have received the signal after this."""

_UNSUPPORTED = {
    "is_ssl": "TLS (certfile, keyfile)",
    "permit_obsolete_folding": "permit_obsolete_folding",
    "strip_header_spaces": "strip_header_spaces",
    "casefold_http_method": "casefold_http_method",
    "permit_unconventional_http_method": "permit_unconventional_http_method",
    "permit_unconventional_http_version": "permit_unconventional_http_version",
}
"""Unsupported settings: TLS, and those that accept malformed requests."""
_HTTP_1 = {"proxy_protocol": "off", "protocol": "http", "http2_cleartext": "off"}
"""Settings with only one supported value, because the worker speaks only HTTP/1."""


class KeepAliveWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """A worker class that serves many kept HTTP/1 connections on one thread, and makes the calls
    for requests that take long in others.

    Of the features of gthread, it lacks those that `check_config` rejects, such as TLS, and
    ``wsgi.early_hints``.

    The class attributes are limits for which Gunicorn has no setting; set them in a configuration
    file: ``KeepAliveWorker.max_body_bytes = 1 << 20``. ``send_timeout_seconds`` and
    ``keepalive_seconds`` come from Gunicorn's ``timeout`` and ``keepalive``.
    """

    max_body_bytes = 16 << 20
    """The largest body of a request, in bytes; the response to a larger one is 413."""
    headers_timeout_seconds = 10.0
    """Seconds that the head of a request may take to arrive; after that, the response is 408."""
    body_timeout_seconds = 30.0
    """Seconds that the body of a request may take to arrive."""
    max_held_bytes = 256 << 20
    """The most bytes that a worker holds of requests and unsent responses. Beyond that, the largest
    request is rejected with 503, or the largest response aborted.
    """
    min_send_rate = 1024
    """The least bytes per second that a client must read of a response, once it has kept the worker
    waiting for ``send_timeout_seconds``."""
    yield_seconds = 0.002
    """Seconds for which a worker leaves a new connection to workers that are less loaded."""
    drain_seconds = 0.0
    """How long a worker continues as before when the whole server is stopped, so that load
    balancers can notice, and send requests elsewhere."""

    pool_threads = 8
    """How many calls of requests that take long run at once at most; see `pool_queue`."""

    delegates_rejections = False
    """If True, the application words the response to a rejected request: it is called with an empty
    body and a `Rejection` in the environ; see `app.worker.contract`."""

    setting_names: Mapping[str, str] = {}
    """The names of limits in messages, if an application has settings of its own for them: by the
    name of Gunicorn's setting, or of the attribute of this class."""

    @staticmethod
    def wait_budget(environ: Environ) -> float:
        """Return how many seconds a request may wait; see `app.worker.request_queue`.

        ``environ`` has what the head says alone, and all requests with this head may wait as long.
        A ``post_fork`` hook may replace it on its worker. It must not raise.
        """
        return inf

    @staticmethod
    def may_send_body(environ: Environ) -> bool:
        """Return True to receive the body of a request.

        The worker calls this when the head of a request has arrived before its body. If it returns
        False, the application is called at once with an empty body, and the connection is closed
        after the response. A ``post_fork`` hook may replace it on its worker. It must not raise.
        """
        return True

    @staticmethod
    def pool_queue(environ: Environ) -> str | None:
        """Return the name of a queue to call the application for a request in a thread beside the
        loop; None to call it in the loop.

        The request waits until one of ``pool_threads`` is free, within its `wait_budget`, while the
        loop serves others. The queues get threads in turn, and none gets all of them; there must be
        few. The application must be thread-safe. A body that is a stream is iterated by the loop. A
        ``post_fork`` hook may replace this on its worker. It must not raise.
        """
        return None

    @staticmethod
    def find_direct(environ: Environ) -> DirectCall | None:
        """Return what answers requests with a head instead of the call of WSGI, if anything does.

        ``environ`` has what the head says alone; the worker asks when it comes a second time. It
        calls WSGI all the same for requests that are overdue or rejected, for whose bodies it had
        to ask `may_send_body`, or that hooks of Gunicorn want to see. A ``post_fork`` hook may
        replace this on its worker. It must not raise.
        """
        return None

    @staticmethod
    def report_in_flight(mean: float) -> None:
        """Do nothing; called about every second with the mean number of requests in flight.

        A ``post_fork`` hook may replace it on its worker.
        """

    @staticmethod
    def release_memory() -> None:
        """Do nothing; called when much less memory is held than before, to release it.

        A ``post_fork`` hook may replace it on its worker.
        """

    @staticmethod
    def before_waiting() -> None:
        """Do nothing; called when there is nothing to do, before the worker waits for events, and
        after its last request.

        A ``post_fork`` hook may replace it on its worker, to do there what can wait until then. It
        must not block, and must not raise.
        """

    _load_table = LoadTable()  # made in the master, which imports this before it forks

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Raise `RuntimeError`, which Gunicorn prints, for settings that only gthread supports.

        Threads are harmless, so they are only warned of.
        """
        if cfg.threads > 1:
            log.warning(
                "threads = %d has no effect: the keep-alive worker has one thread for all "
                "connections. Use the worker class gthread, or remove threads.",
                cfg.threads,
            )
        faults = [name for setting, name in _UNSUPPORTED.items() if getattr(cfg, setting)]
        faults += [name for name, only in _HTTP_1.items() if getattr(cfg, name, only) != only]
        if faults:
            raise RuntimeError(
                f"The keep-alive worker does not support {', '.join(faults)}: use the worker class "
                "gthread, or a proxy in front of it."
            )

    alive: bool
    _pool: CallPool | None = None

    @property
    def makes_calls(self) -> bool:
        """True if calls run in threads; none does before the process is initialised."""
        return self._pool is not None and self._pool.running > 0

    def init_process(self) -> None:
        self.poller = select.epoll()
        self.hooks: Hooks | None = None
        self.is_ending = False
        self.wsgi: Application
        self._connections: dict[int, Connection] = {}
        self._held = self._peak_held = 0
        self._postponed: dict[int, int] = {}
        self._warnings = 0
        self.queue = RequestQueue(self._budget)
        self._pool = CallPool(self.pool_threads, self._wake_up)
        self.calls = CallQueues(self._budget, self._pool, self._advance_entry)
        self.unwatched_seconds = 0.0
        self._watched_at = self._none_waited_at = monotonic()
        self._is_stopping = False
        self._max_connections = connections_that_fit(self.cfg.worker_connections)
        self.keepalive_seconds: float = self.cfg.keepalive
        self.send_timeout_seconds: float = self.cfg.timeout or 30
        # Deadlines are checked every second, or four times within the shortest.
        deadlines = (self.headers_timeout_seconds, self.body_timeout_seconds)
        self._beat_seconds = min(1.0, *(seconds / 4 for seconds in deadlines))
        if self.cfg.timeout:
            self._beat_seconds = min(self._beat_seconds, self.cfg.timeout / 4)
        self._next_beat = self._next_notice = 0.0
        super().init_process()

    def _budget(self, request: Request) -> float:
        head = request.head
        budget = head.budget
        if budget is None:
            budget = head.budget = self.wait_budget(head.environ)
        return budget

    # The interface for connections (`ConnectionOwner`)

    def count_request(self, *, is_last: bool) -> bool:
        """Count a request that is about to be served; return True if its connection may be kept.

        ``is_last`` is True if no other request has arrived on it yet.
        """
        if self.queue.now >= self._next_notice:
            self._report_alive(self.queue.now)
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
        return self.may_keep(is_last=is_last)

    def may_keep(self, *, is_last: bool) -> bool:
        """Return True if a connection may be kept; ``is_last`` as for `count_request`."""
        return self.keepalive_seconds > 0 and not (is_last and (self.is_full or not self.alive))

    @property
    def unaccepted_seconds(self) -> float:
        """The most seconds that a connection accepted now may have waited."""
        return self.queue.now - self._none_waited_at

    @property
    def is_behind(self) -> bool:
        """True if another worker would serve a request much sooner."""
        return self._load_table.is_behind(self.age, self._backlog_seconds)

    @property
    def _backlog_seconds(self) -> float:
        return self.queue.backlog_seconds + self.calls.backlog_seconds

    def hold(self, fd: int, more: int) -> bool:
        """Add ``more`` bytes, which may be negative, to those that the connection ``fd`` holds.

        Beyond the limit, the connection that holds the most is rejected or aborted, because clients
        that hold little are not the cause. Return False if that is this connection itself. One
        whose call runs is left alone: closing it would release nothing.
        """
        self._held += more
        self._peak_held = max(self._held, self._peak_held)
        if more > 0 and self._held > self.max_held_bytes:
            others = (each for each in self._connections.values() if not each.is_running)
            largest = max(others, key=attrgetter("held"))
            if largest.fd == fd:
                return False
            self._guarded(largest, largest.abandon, self.too_much_held())
        return True

    def too_much_held(self) -> Rejection:
        """Return the rejection for the connection that holds the most."""
        return Rejection(
            503,
            "Server overloaded: requests and unsent responses exceed the limit of "
            f"{self.max_held_bytes:,} bytes (max_held_bytes), and this one is the largest. "
            "Retry later.",
            "max_held_bytes",
        )

    def warn(self, message: str, *arguments: object) -> None:
        """Log a warning about a client, up to a limit; `_beat` logs how many were suppressed.

        Anyone can cause any number of them.
        """
        self._warnings += 1
        if self._warnings <= _MAX_WARNINGS:
            self.log.warning(message, *arguments)

    def forget(self, fd: int) -> None:
        """Remove a connection that is being closed from the loop."""
        del self._connections[fd]
        self._postponed.pop(fd, None)
        self.poller.unregister(fd)
        self._publish_load()

    # Signals of the master

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._is_stopping = True
        super().handle_exit(sig, frame)
        self._load_table.withdraw(self.age)  # at once: the current request may take a while

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        self.is_ending = True  # the exception raised now is not the application's
        super().handle_quit(sig, frame)

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        self.is_ending = True
        super().handle_abort(sig, frame)

    # The loop

    def run(self) -> None:
        hooks = Hooks(self)
        self.hooks = hooks if hooks.are_any else None
        self._wake = self.PIPE[0]
        self.poller.register(self._wake, EPOLLIN)
        self._acceptor = Acceptor(self)
        while self.alive:
            self._acceptor.update()
            self._step()
        self._drain()

    def _step(self) -> None:
        """Wait for events, read what arrived, and serve the queue."""
        queue = self.queue
        watched = monotonic()
        events = self.poller.poll(0)
        if not (events or queue or self._postponed):
            self.before_waiting()
            events = self.poller.poll(self._seconds_to_wait())
        now = monotonic()
        # What has arrived came after the sockets were last polled: while others were served or, if
        # the loop was waiting, just now.
        self.unwatched_seconds, self._watched_at = watched - self._watched_at, now
        queue.now = now
        if not self._handle(events, now + _READING_SECONDS):
            self._none_waited_at = now
        if self.calls.is_busy:
            self.calls.step(self._resume_entry)
        if queue:
            queue.now = monotonic()
            share = (queue.now - now) * _SERVING_RATIO
            seconds = min(max(share, _MIN_SERVING_SECONDS), _MAX_SERVING_SECONDS)
            queue.serve(self._advance_entry, seconds if queue.has_requests else _DEFERRED_SECONDS)
            self._publish_load()
        if queue.now >= self._next_beat:
            self._beat(queue.now)

    def _seconds_to_wait(self) -> float:
        seconds = self._acceptor.seconds_to_wait(self._beat_seconds)
        return self.calls.seconds_to_wait(seconds)

    def _handle(self, events: list[tuple[int, int]], until: float) -> bool:
        """Read and accept; what there is no time for is postponed to the next step.

        Return True if connections are left to be accepted.
        """
        if self._postponed:
            self._postponed.update(events)  # known ones keep their places
            events = list(self._postponed.items())
            self._postponed = {}
        some_wait = False
        for number, (fd, event) in enumerate(events, 1):
            connection = self._connections.get(fd)
            if connection is not None:
                # `_guarded`, inlined: a function call for each event is measurable.
                try:
                    connection.on_event(event)
                except Exception:
                    self._close_faulty(connection)
            elif fd in self._acceptor.listeners:
                some_wait = self._acceptor.accept(fd) or some_wait
            else:
                _empty(self._wake)
            if monotonic() > until:
                self._postponed = dict(events[number:])
                break
        for fd in self._postponed:
            if fd in self._connections:
                self._connections[fd].pass_over(self.unwatched_seconds)
            some_wait = some_wait or fd in self._acceptor.listeners
        return some_wait

    def _advance_entry(self, entry: QueueEntry) -> None:
        try:  # as in `_handle`
            entry.advance()
        except Exception:
            self._close_faulty(entry)

    def _resume_entry(self, entry: QueueEntry, error: BaseException | None) -> None:
        self._guarded(entry, entry.resume, error)

    def _wake_up(self) -> None:
        """Wake the loop, which may be waiting for events; called in any thread."""
        with contextlib.suppress(OSError):  # the pipe is full, and the loop awake
            os.write(self.PIPE[1], b".")

    def _guarded(self, connection: QueueEntry, act: Any, *arguments: Any) -> None:
        """Limit the damage of a bug in the worker to one connection."""
        try:
            act(*arguments)
        except Exception:
            self._close_faulty(connection)

    def _close_faulty(self, connection: QueueEntry) -> None:
        self.log.exception("Error on a connection, which is closed")
        if not connection.is_closed:
            connection.close()

    def _beat(self, now: float) -> None:
        """Do what is due every second or so: notify the master, and check deadlines."""
        self._next_beat = now + self._beat_seconds
        if self.alive and self.ppid != os.getppid():
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False
        self._report_alive(now)
        if self._warnings > _MAX_WARNINGS:
            more = self._warnings - _MAX_WARNINGS
            self.log.warning("%d more warnings about clients were suppressed", more)
        self._warnings = 0
        self.report_in_flight(self.queue.mean_in_flight() + self.calls.mean_in_flight())
        if self._peak_held > max(_RELEASE_BYTES, 2 * self._held):
            self._peak_held = self._held
            self.release_memory()
        for connection in list(self._connections.values()):
            self._guarded(connection, connection.check_deadline, now)

    def _report_alive(self, now: float) -> None:
        """Notify the master, which replaces unresponsive workers, and publish the load.

        While a call runs, it is told that the worker was alive when that began: one that hangs has
        the worker replaced after the same time as if it had been made in the loop.
        """
        self._next_notice = now + self._beat_seconds
        oldest = self._pool.oldest_at if self._pool is not None else None
        if oldest is None:
            self.notify()
        else:
            report_alive_at(self.tmp, oldest)
        self._publish_load()

    def _publish_load(self) -> None:
        if self.alive:
            self._load_table.publish(self.age, self._backlog_seconds, len(self._connections))

    # The interface for the acceptor (`AcceptorOwner`)

    @property
    def is_full(self) -> bool:
        """True if the worker has as many connections as it may."""
        return len(self._connections) >= self._max_connections

    @property
    def should_yield(self) -> bool:
        """True if another worker that accepts connections is less loaded."""
        return self._load_table.should_yield(
            self.age, self._backlog_seconds, len(self._connections)
        )

    def make_room(self) -> bool:
        """Close the longest idle connection, if it has been idle long enough."""
        idle = [connection for connection in self._connections.values() if connection.is_idle]
        oldest = min(idle, key=attrgetter("idle_since"), default=None)
        if oldest is None or monotonic() - oldest.idle_since < _SURELY_IDLE_SECONDS:
            return False
        oldest.close()
        return True

    def add(self, connection: Connection) -> None:
        """Add an accepted connection to the loop."""
        self._connections[connection.fd] = connection
        self._publish_load()

    # Stopping

    def _drain(self) -> None:
        """Serve the complete requests of open and waiting connections before the worker exits."""
        begun = monotonic()
        self._load_table.withdraw(self.age)
        while self._keeps_accepting(monotonic() - begun):
            self._acceptor.update()
            self._step()
        self._acceptor.close()
        closed = monotonic()
        while self._connections and monotonic() < begun + self.cfg.graceful_timeout:
            self._step()
            if monotonic() >= closed + _DRAIN_SECONDS:
                for connection in list(self._connections.values()):
                    self._guarded(connection, connection.leave)
        for connection in list(self._connections.values()):
            connection.close()
        self.before_waiting()
        self.poller.close()

    def _keeps_accepting(self, seconds: float) -> bool:
        """Return True to continue to accept ``seconds`` after the signal to stop.

        At a reload, or if only this worker stops, others take its place, and it need not.
        """
        if not self._is_stopping or seconds >= self.drain_seconds:
            return False
        return seconds < _SIGNAL_SECONDS or not self._load_table.has_peers(self.age)


def _empty(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(pipe, 4096):
            pass
