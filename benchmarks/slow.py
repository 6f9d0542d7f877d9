"""Clients that hold connections and don't get on: what an idle pool or a slowloris looks like."""

from __future__ import annotations

import selectors
import socket
import threading
import time

from benchmarks import payloads
from benchmarks.servers import BenchmarkError, Server

_POLL_SECONDS = 0.05
_RENEWAL_SECONDS = 7.0
"""How long a half-sent request is left: less than the ten seconds that a head may take."""


class SlowConnections:
    """Keeps ``count`` connections open: half idle after an answer, half with half a request.

    Of the latter one half stops within the head, the other within the body. Before the server's
    time limits end one, another takes its place. One that the server ends all the same is opened
    anew; ``fewest`` is how many were open when there were fewest, ``reopened`` how many were
    replaced for either reason.
    """

    def __init__(self, server: Server, count: int) -> None:
        body = payloads.single(payloads.golden_samples()[0])
        head = (
            "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        half_head, half_body = head[: len(head) // 2], head + body[: len(body) // 2]
        self._whole = head + body
        self._sent = ([self._whole, half_head, self._whole, half_body] * (count // 4 + 1))[:count]
        self._address = ("127.0.0.1", server.port)
        self._selector = selectors.DefaultSelector()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._tend)
        self.fewest = count
        self.reopened = 0

    def __enter__(self) -> SlowConnections:
        for sent in self._sent:
            self._open(sent)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            self._close(key)
        self._selector.close()

    def _open(self, sent: bytes) -> None:
        connection = socket.create_connection(self._address, timeout=10)
        connection.sendall(sent)
        if sent is self._whole and not connection.recv(65536).startswith(b"HTTP/1.1 200"):
            raise BenchmarkError("A connection that was to idle was not answered 200 before.")
        self._selector.register(connection, selectors.EVENT_READ, (sent, time.monotonic()))

    def _close(self, key: selectors.SelectorKey) -> None:
        connection = key.fileobj
        assert isinstance(connection, socket.socket)
        self._selector.unregister(connection)
        connection.close()

    def _tend(self) -> None:
        """Renew what is half-sent, and replace what the server ended: only that is readable."""
        while not self._stopping.is_set():
            ended = [key for key, _ in self._selector.select(_POLL_SECONDS)]
            self.fewest = min(self.fewest, len(self._sent) - len(ended))
            for key in ended:
                self._close(key)
                self._open(key.data[0])
            old = [key for key in self._selector.get_map().values() if self._is_old(key)]
            for key in old:
                self._open(key.data[0])  # before the other is closed: there are never fewer
                self._close(key)
            self.reopened += len(ended) + len(old)

    def _is_old(self, key: selectors.SelectorKey) -> bool:
        sent, opened = key.data
        return sent is not self._whole and time.monotonic() - opened > _RENEWAL_SECONDS
