"""The loop: one thread that waits for all its connections at once, and serves them in turn."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from math import inf
from operator import attrgetter
from select import EPOLLIN
from time import monotonic
from types import FrameType
from typing import Any

from gunicorn.http.wsgi import base_environ
from gunicorn.workers.base import Worker

from .answer import Application
from .connection import SO_TIMESTAMPNS, Connection
from .files import connections_that_fit
from .head import Environ, HeadParser, is_trusted
from .hooks import Hooks
from .refusal import Refusal
from .shares import Shares
from .turns import Turns

_DRAIN_SECONDS = 2.0
"""How long a worker that stops still waits for requests on the connections that are open."""
_FULL_SECONDS = 0.05
"""How long a worker that is full, and could make no room, leaves new connections to wait."""
_YIELDED_SECONDS = 0.05
"""So soon after it has left a connection to others, and nobody took it, a worker accepts one."""
_MOST_ACCEPTED = 64
"""So many connections are accepted before those that are open are looked at again."""
_SURELY_IDLE_SECONDS = 1.0
"""One that is idle for less may have its next request under way."""
_SERVING_SHARE = 10
"""Of the time that reading took, while requests wait; within the two bounds below. Who is refused
and asks again at once can't take the time from those who are served."""
_LEAST_SERVING_SECONDS, _MOST_SERVING_SECONDS = 0.01, 0.03
_READING_SECONDS = 0.005
"""So long what came is read before those who wait have their turns."""
_GOING_ON_SECONDS = 0.002
"""So long answers and bodies go on, where no request waits, before the sockets are looked at."""
_MOST_WARNINGS = 20
"""So many warnings of what clients do are logged between two beats, which are a second at most."""
_MUCH_HELD = 32 << 20
"""Of less, nothing is given back."""
_TOGETHER_SECONDS = 0.5
"""Workers that are told to stop together have all heard of it after this."""

_ELSEWHERE = {
    "is_ssl": "TLS (certfile, keyfile)",
    "permit_obsolete_folding": "permit_obsolete_folding",
    "strip_header_spaces": "strip_header_spaces",
    "casefold_http_method": "casefold_http_method",
    "permit_unconventional_http_method": "permit_unconventional_http_method",
    "permit_unconventional_http_version": "permit_unconventional_http_version",
}
"""Settings that this worker does not have: one for a proxy, and those that loosen the rules."""
_HTTP_1 = {"proxy_protocol": "off", "protocol": "http", "http2_cleartext": "off"}
"""Settings that must have these values, because it speaks nothing but HTTP/1."""


class KeepAliveWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """Serves kept connections of HTTP/1 on one thread.

    What gthread has beside that, TLS first of all, `check_config` refuses by name; the environ has
    no ``wsgi.early_hints``.

    The attributes of the class are limits that Gunicorn has no setting for; a configuration file
    sets them: ``KeepAliveWorker.max_body_bytes = 1 << 20``. ``send_timeout_seconds`` and
    ``keepalive_seconds`` come from Gunicorn's ``timeout`` and ``keepalive``.
    """

    max_body_bytes = 16 << 20
    """The largest body of a request; more is answered 413."""
    headers_timeout_seconds = 10.0
    """How long the head of a request may take to arrive; later it is answered 408."""
    body_timeout_seconds = 30.0
    """How long its body may take."""
    most_held_bytes = 256 << 20
    """How many bytes a worker keeps: of requests that arrive, wait or are answered, and of answers
    that wait to be sent. Beyond it, who holds the most is refused with 503, or its answer given up.
    """
    least_send_rate = 1024
    """How many bytes a second a client has to read of an answer, once it has kept it waiting for
    ``send_timeout_seconds``."""
    yield_seconds = 0.002
    """How long a worker leaves a new connection to those that have fewer than it."""
    drain_seconds = 0.0
    """How long a worker that is told to stop goes on as before, if no other worker takes its place:
    whoever leads requests here can notice that the service is about to stop, and lead them on."""

    asks_application = False
    """Whether the application words refusals: it is called with an empty body and finds a `Refusal`
    under `app.worker.environ.REFUSAL`. The method is UNREAD where the head wasn't read."""

    @staticmethod
    def wait_budget(environ: Environ) -> float:
        """Give the seconds that a request may wait for its turn; see `app.worker.turns`.

        A ``post_fork`` hook may set another on its worker. It must not raise.
        """
        return inf

    @staticmethod
    def may_send_body(environ: Environ) -> bool:
        """Return whether to receive the body of a request that is to be served.

        The worker asks once the head is here and the body isn't. If not, the application is called
        at once with an empty body, and the connection closed after its answer. A ``post_fork`` hook
        may set another on its worker. It must not raise.
        """
        return True

    @staticmethod
    def tell_in_flight(mean: float) -> None:
        """Take note, every second or so, of the mean number of requests that waited or were served.

        A ``post_fork`` hook may set another on its worker.
        """

    @staticmethod
    def give_back_memory() -> None:
        """Return free memory to the kernel; called when much less is held than was.

        A ``post_fork`` hook may set another on its worker.
        """

    _shares = Shares()  # made in the master, which imports this before it forks

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Raise `RuntimeError`, which Gunicorn prints, for a setting that only gthread has.

        Threads do no harm and nothing else, so they get a warning.
        """
        if cfg.threads > 1:
            log.warning(
                "threads = %d does nothing here: a keep-alive worker has one thread. Use the "
                "worker class gthread, or leave threads out.",
                cfg.threads,
            )
        faults = [name for setting, name in _ELSEWHERE.items() if getattr(cfg, setting)]
        faults += [name for name, only in _HTTP_1.items() if getattr(cfg, name, only) != only]
        if faults:
            raise RuntimeError(
                f"The keep-alive worker does not have {', '.join(faults)}: use the worker class "
                "gthread, or a proxy in front of it."
            )

    alive: bool

    def init_process(self) -> None:
        self.poller = select.epoll()
        self.hooks: Hooks | None = None
        self.is_ending = False
        self.wsgi: Application
        self._connections: dict[int, Connection] = {}
        self._listeners: dict[int, tuple[socket.socket, Environ]] = {}
        self._accepting = False
        self._accept_at = 0.0
        self._held = self._most_held = 0
        self._put_off: dict[int, int] = {}
        self._warnings = 0
        self.turns = Turns(self.wait_budget)
        self.unwatched_seconds = 0.0
        self._watched_at = self._none_waited_at = monotonic()
        self._is_told_to_stop = False
        self._most_connections = connections_that_fit(self.cfg.worker_connections)
        self.keepalive_seconds: float = self.cfg.keepalive
        self.send_timeout_seconds: float = self.cfg.timeout or 30
        # Deadlines are kept to a quarter of the shortest, and to a second.
        deadlines = (self.headers_timeout_seconds, self.body_timeout_seconds)
        self._beat_seconds = min(1.0, *(seconds / 4 for seconds in deadlines))
        if self.cfg.timeout:
            self._beat_seconds = min(self._beat_seconds, self.cfg.timeout / 4)
        self._next_beat = self._next_notice = 0.0
        super().init_process()

    # What connections ask of their worker

    def count_request(self, *, is_last: bool) -> bool:
        """Count a request that is about to be served; tell whether its connection may be kept.

        ``is_last`` says that no other request has arrived on it yet.
        """
        if self.turns.now >= self._next_notice:
            self._tell_that_it_lives(self.turns.now)
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
        return self.keepalive_seconds > 0 and not (is_last and (self._is_full or not self.alive))

    @property
    def unaccepted_seconds(self) -> float:
        """How long a connection that is accepted now may have waited for that."""
        return self.turns.now - self._none_waited_at

    @property
    def is_behind(self) -> bool:
        """Whether another worker would serve a request much sooner."""
        return self._shares.is_behind(self.age, self.turns.ahead)

    def hold(self, connection: Connection, more: int) -> bool:
        """Count ``more`` bytes (or less, where negative) that ``connection`` keeps.

        Where it is too much in all, the one that holds the most has to let go: a client that holds
        little isn't to blame. Return False if that is ``connection`` itself.
        """
        self._held += more
        self._most_held = max(self._held, self._most_held)
        if more > 0 and self._held > self.most_held_bytes:
            largest = max(self._connections.values(), key=attrgetter("held"))
            if largest is connection:
                return False
            self._guarded(largest, largest.give_up, self.too_much_held())
        return True

    def too_much_held(self) -> Refusal:
        """Return the refusal for the connection that holds the most, where all hold too much."""
        return Refusal(
            503,
            f"Server overloaded: requests that arrive and answers that wait to be sent exceed "
            f"{self.most_held_bytes} bytes (limits.max_held_bytes), and this is the largest. "
            "Retry later.",
        )

    def warn(self, message: str, *arguments: object) -> None:
        """Log what a client did wrong; of many in a short time some, and how many more there were.

        Clients that have no key can do wrong as often as they like.
        """
        self._warnings += 1
        if self._warnings <= _MOST_WARNINGS:
            self.log.warning(message, *arguments)

    def forget(self, connection: Connection) -> None:
        """Take a connection that is being closed out of the loop."""
        del self._connections[connection.fd]
        self._put_off.pop(connection.fd, None)
        self.poller.unregister(connection.fd)
        self._tell_share()

    # What the master asks

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._is_told_to_stop = True
        super().handle_exit(sig, frame)
        self._shares.leave(self.age)  # now: what is being served may take a while

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        self.is_ending = True  # what this raises is not the application's
        super().handle_quit(sig, frame)

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        self.is_ending = True
        super().handle_abort(sig, frame)

    # The loop

    def run(self) -> None:
        hooks = Hooks(self)
        self.hooks = hooks if hooks.are_any else None
        environ = base_environ(self.cfg)
        environ["SCRIPT_NAME"] = ""
        environ["wsgi.url_scheme"] = "http"
        self._parsers = {
            trusted: HeadParser(self.cfg, trusted=trusted) for trusted in (False, True)
        }
        self._wake = self.PIPE[0]
        self.poller.register(self._wake, EPOLLIN)
        for listener in self.sockets:
            listener.setblocking(False)
            with contextlib.suppress(OSError):  # not every kernel tells; connections inherit it
                listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self._listeners[listener.fileno()] = (listener, environ | _names_of(listener))
        while self.alive:
            self._accept_or_not(monotonic() >= self._accept_at)
            self._turn()
            if self.ppid != os.getppid():
                self.log.info("Parent changed, shutting down: %s", self)
                break
        self._drain()

    def _turn(self) -> None:
        """Wait for something to happen, read what came, and give turns to those who wait."""
        turns = self.turns
        watched = monotonic()
        is_busy = turns or self._put_off
        events = self.poller.poll(0 if is_busy else self._seconds_to_wait())
        now = monotonic()
        # What is there now came since the sockets were last looked at, be it while others were
        # served or, where nothing was waited for, just now.
        self.unwatched_seconds, self._watched_at = watched - self._watched_at, now
        turns.now = now
        if not self._handle(events, now + _READING_SECONDS):
            self._none_waited_at = now
        if turns:
            turns.now = monotonic()
            share = (turns.now - now) * _SERVING_SHARE
            seconds = min(max(share, _LEAST_SERVING_SECONDS), _MOST_SERVING_SECONDS)
            turns.serve(self._give_turn, seconds if turns.is_line else _GOING_ON_SECONDS)
            self._tell_share()
        if turns.now >= self._next_beat:
            self._beat(turns.now)

    def _handle(self, events: list[tuple[int, int]], until: float) -> bool:
        """Read what came, and accept; what is not come to in time is put off to the next turn.

        Return whether somebody waits to be accepted, be it because there is no room: who does
        doesn't wait for a turn.
        """
        if self._put_off:
            self._put_off.update(events)  # which leaves those that it knows in their places
            events = list(self._put_off.items())
            self._put_off = {}
        some_wait = False
        for number, (fd, event) in enumerate(events, 1):
            connection = self._connections.get(fd)
            if connection is not None:
                self._guarded(connection, connection.on_event, event)
            elif fd in self._listeners:
                some_wait = True
                self._accept(fd)
            else:
                _empty(self._wake)
            if monotonic() > until:
                self._put_off = dict(events[number:])
                break
        for fd in self._put_off:
            if fd in self._connections:
                self._connections[fd].pass_over(self.unwatched_seconds)
            some_wait = some_wait or fd in self._listeners
        return some_wait

    def _give_turn(self, connection: Connection) -> None:
        self._guarded(connection, connection.advance)

    def _seconds_to_wait(self) -> float:
        if self._accepting or not self._listeners:
            return self._beat_seconds
        return min(self._beat_seconds, max(0.0, self._accept_at - monotonic()))

    def _guarded(self, connection: Connection, act: Any, *arguments: Any) -> None:
        """Have a fault of the worker itself cost one connection, not all of them."""
        try:
            act(*arguments)
        except Exception:
            self.log.exception("Error on a connection; it is closed")
            if not connection.is_closed:
                connection.close()

    def _beat(self, now: float) -> None:
        """Tell that this worker lives, and look for what is overdue."""
        self._next_beat = now + self._beat_seconds
        self._tell_that_it_lives(now)
        if self._warnings > _MOST_WARNINGS:
            more = self._warnings - _MOST_WARNINGS
            self.log.warning("%d more warnings of that kind are left out", more)
        self._warnings = 0
        self.tell_in_flight(self.turns.mean_in_flight())
        if self._most_held > max(_MUCH_HELD, 2 * self._held):
            self._most_held = self._held
            self.give_back_memory()
        for connection in list(self._connections.values()):
            self._guarded(connection, connection.check_deadline, now)

    def _tell_that_it_lives(self, now: float) -> None:
        """Tell the master, which replaces a worker that doesn't, and the other workers."""
        self._next_notice = now + self._beat_seconds
        self.notify()
        self._tell_share()

    def _tell_share(self) -> None:
        if self.alive:
            self._shares.tell(self.age, self.turns.ahead, len(self._connections))

    @property
    def _is_full(self) -> bool:
        return len(self._connections) >= self._most_connections

    # Accepting

    def _accept_or_not(self, accepting: bool) -> None:
        if accepting == self._accepting:
            return
        self._accepting = accepting
        for fd in self._listeners:
            if accepting:
                self.poller.register(fd, EPOLLIN)
            else:
                self.poller.unregister(fd)

    def _accept(self, fd: int) -> None:
        for number in range(_MOST_ACCEPTED):
            if not self._may_accept(is_first=number == 0):
                return
            if not self._accept_one(*self._listeners[fd]):
                return

    def _may_accept(self, *, is_first: bool) -> bool:
        """Tell whether to accept a connection now; if not, when to look again is settled."""
        if self._is_full and not is_first:
            return False  # nobody has to leave unless it is known that somebody waits
        if self._is_full and not self._make_room():
            self._accept_at = monotonic() + _FULL_SECONDS
            return False
        if self._shares.has_more(self.age, self.turns.ahead, len(self._connections)):
            if not is_first:
                return False
            now = monotonic()
            if not 0 <= now - self._accept_at < _YIELDED_SECONDS:
                self._accept_at = now + self.yield_seconds
                return False
        self._accept_at = 0.0
        return True

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest, if it has been for long enough."""
        idle = [connection for connection in self._connections.values() if connection.is_idle]
        oldest = min(idle, key=attrgetter("idle_since"), default=None)
        if oldest is None or monotonic() - oldest.idle_since < _SURELY_IDLE_SECONDS:
            return False
        oldest.close()
        return True

    def _accept_one(self, listener: socket.socket, environ: Environ) -> bool:
        """Accept a connection; tell whether there was one."""
        try:
            sock, peer = listener.accept()
        except BlockingIOError:
            self._none_waited_at = self.turns.now
            return False
        except ConnectionAbortedError:
            return False
        except OSError as error:
            self.log.warning("No connection can be accepted for now: %s", error.strerror)
            self._accept_at = monotonic() + self._beat_seconds
            return False
        try:
            sock.setblocking(False)
            template = environ.copy()
            if isinstance(peer, tuple):
                template["REMOTE_ADDR"], template["REMOTE_PORT"] = peer[0], str(peer[1])
            else:
                template["REMOTE_ADDR"] = os.fsdecode(peer)
            parser = self._parsers[is_trusted(self.cfg, peer)]
            connection = Connection(self, sock, template, parser)
        except Exception:
            self.log.exception("Error on a new connection; it is closed")
            sock.close()
            return False
        self._connections[connection.fd] = connection
        self._tell_share()
        return True

    # Stopping

    def _drain(self) -> None:
        """Answer what was sent whole, on connections that are open or wait to be accepted."""
        begun = monotonic()
        self._shares.leave(self.age)
        while self._goes_on(monotonic() - begun):
            self._accept_or_not(monotonic() >= self._accept_at)
            self._turn()
        self._accept_or_not(False)
        for listener, environ in self._listeners.values():
            for _ in range(self.cfg.backlog):
                if not self._accept_one(listener, environ):
                    break
            listener.close()
        self._listeners.clear()
        closed = monotonic()
        while self._connections and monotonic() < begun + self.cfg.graceful_timeout:
            self._turn()
            if monotonic() >= closed + _DRAIN_SECONDS:
                for connection in list(self._connections.values()):
                    self._guarded(connection, connection.leave)
        for connection in list(self._connections.values()):
            connection.close()
        self.poller.close()

    def _goes_on(self, seconds: float) -> bool:
        """Tell whether to accept connections ``seconds`` after the worker was told to stop.

        At a reload, or when this worker alone is to stop, others take its place.
        """
        if not self._is_told_to_stop or seconds >= self.drain_seconds:
            return False
        return seconds < _TOGETHER_SECONDS or not self._shares.has_others(self.age)


def _names_of(listener: socket.socket) -> Environ:
    """Give the server's name and port; a Unix socket has none, the request's Host tells them."""
    name = listener.getsockname()
    if isinstance(name, tuple):
        return {"SERVER_NAME": name[0], "SERVER_PORT": str(name[1])}
    return {}


def _empty(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(pipe, 4096):
            pass
