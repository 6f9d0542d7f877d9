"""Work of the loop that is no answer has its bounds: those who make much of it wait for others.

Counted are the steps of the worker between what others get, and no milliseconds: the worker is
stopped while everything is sent, so that it finds all of it at once.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import ExitStack

import pytest

from tests.worker.conftest import Gunicorn, Serve, limits, stopped, wait_for
from tests.worker.wire import Connection, ask, chunked, request

COUNTED = """
from app.worker.chunks import ChunkedBody
from app.worker.connection import Connection
from tests.worker import apps

feed, receive = ChunkedBody.feed, Connection._receive_bytes
receive_into = Connection._receive_into

def counted_feed(self, buffer):
    before = len(buffer)
    try:
        return feed(self, buffer)
    finally:
        apps.recorded.append(f"fed {before - len(buffer)}")

def counted_receive(self, most):
    data = receive(self, most)
    apps.recorded.append(f"read {len(data)}")
    return data

def counted_receive_into(self, room):
    received = receive_into(self, room)
    apps.recorded.append(f"read {received}")
    return received

ChunkedBody.feed, Connection._receive_bytes = counted_feed, counted_receive
Connection._receive_into = counted_receive_into
"""
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture
def counted(serve: Serve) -> Gunicorn:
    return serve("zoo", config=COUNTED)


def steps(gunicorn: Gunicorn) -> list[tuple[str, int]]:
    """Return what was recorded: each word and its number, 0 where it has none."""
    recorded = ask(gunicorn.address, "/recorded").json()
    return [(step, int(re.sub(r"^\D*", "", step) or 0)) for step in recorded]


def connect(gunicorn: Gunicorn, stack: ExitStack) -> Connection:
    connection = stack.enter_context(Connection(gunicorn.address))
    assert connection.send(request("/pid")).answer() is not None
    return connection


def test_a_request_does_not_wait_for_chunks_of_one_byte(counted: Gunicorn) -> None:
    tiny = request("/unread", CHUNKED, method="POST") + chunked(*[b" "] * 10_000)
    with ExitStack() as stack:
        attackers = [connect(counted, stack) for _ in range(20)]
        other = connect(counted, stack)
        with stopped(counted):
            for attacker in attackers:
                attacker.send(tiny)
            other.send(request("/stream?name=other"))
        for connection in (*attackers, other):
            answer = connection.answer()
            assert answer is not None
            assert answer.status == 200
    taken = steps(counted)
    at = next(n for n, (step, _) in enumerate(taken) if step.startswith("other gave"))
    framed = 20 * len(tiny.partition(b"\r\n\r\n")[2])
    assert total(taken, "fed") == framed
    assert max(number for step, number in taken if step.startswith("fed")) < 4096
    assert total(taken[:at], "fed") < framed / 2, "it waited for the others to be read"


def test_a_request_does_not_wait_for_large_bodies(counted: Gunicorn) -> None:
    body = b"a" * 2_000_000
    with ExitStack() as stack:
        senders = [connect(counted, stack) for _ in range(10)]
        other = connect(counted, stack)
        for sender in senders:
            sender.send(request("/unread", f"Content-Length: {len(body)}", method="POST"))
            sender.send(body[:100_000])
            sender.socket.setblocking(False)
        wait_for(lambda: total(steps(counted), "read") > 1_000_000)
        with stopped(counted):
            sent = [100_000 + sender.socket.send(body[100_000:]) for sender in senders]
            other.send(request("/stream?name=other"))
        assert other.answer() is not None
        for sender, size in zip(senders, sent, strict=True):
            sender.socket.setblocking(True)
            answer = sender.send(body[size:]).answer()
            assert answer is not None
            assert answer.status == 200
    taken = steps(counted)
    at = next(n for n, (step, _) in enumerate(taken) if step.startswith("other gave"))
    assert total(taken, "read") > 20_000_000
    assert total(taken[:at], "read") < 3_000_000, "it waited for the others to be read"
    assert max(number for step, number in taken if step.startswith("read")) <= 1 << 20


def total(taken: list[tuple[str, int]], word: str) -> int:
    return sum(number for step, number in taken if step.startswith(word))


def test_nobody_is_forgotten_where_there_is_hardly_any_time(serve: Serve) -> None:
    """With no time to read or to go on, each turn of the loop still does one thing."""
    config = """
from app.worker import worker
worker._READING_SECONDS = worker._DEFERRED_SECONDS = 0.0
"""
    gunicorn = serve("zoo", config=config)
    large = request("/", method="POST", body=b"a" * 300_000)
    tiny = request("/", CHUNKED, method="POST") + chunked(*[b"a"] * 1000)
    kinds = (request("/pid"), large, tiny, request("/pid") * 5, request("/huge?blocks=40"))
    with ExitStack() as stack:
        connections = [connect(gunicorn, stack) for _ in range(60)]
        for number, connection in enumerate(connections):
            connection.send(kinds[number % len(kinds)])
        for number, connection in enumerate(connections):
            for _ in range(5 if number % len(kinds) == 3 else 1):
                answer = connection.answer()
                assert answer is not None
                assert answer.status == 200


def test_framing_may_not_be_far_more_than_what_it_frames(serve: Serve) -> None:
    gunicorn = serve("echo", config=limits(max_body_bytes=8 << 20))
    head = request("/", CHUNKED, method="POST")

    def sent(framed: bytes) -> tuple[int, bytes]:
        with Connection(gunicorn.address) as connection:
            (answer,) = connection.send(head + framed).end().answers()
        return answer.status, answer.body

    assert sent(chunked(*[b"a"] * 10_000)) == (200, b"a" * 10_000)
    assert sent(chunked(*[b"abc"] * 200_000)) == (200, b"abc" * 200_000)
    assert sent(b"5;" + b"a" * 8000 + b"\r\nabcde\r\n0\r\n\r\n") == (200, b"abcde")
    for framed in (
        chunked(*[b"a"] * 30_000),
        chunked(*[b"ab"] * 100_000),
        (b"1;" + b"a" * 8000 + b"\r\na\r\n") * 9 + b"0\r\n\r\n",
        (b"0" * 8000 + b"1\r\na\r\n") * 9 + b"0\r\n\r\n",
    ):
        status, body = sent(framed)
        assert status == 400, framed[:20]
        assert "bytes of framing" in json.loads(body)["detail"]


def test_a_refused_client_that_sends_on_is_let_go(serve: Serve) -> None:
    gunicorn = serve("echo", config=limits(max_body_bytes=1000))
    with Connection(gunicorn.address) as connection:
        connection.send(request("/", "Content-Length: 1000000000000", method="POST"))
        deadline = time.monotonic() + 60
        with pytest.raises(OSError):
            while time.monotonic() < deadline:
                connection.socket.sendall(b"a" * 65536)
    assert ask(gunicorn.address).status == 200


def test_many_bad_requests_leave_a_bounded_number_of_lines(serve: Serve) -> None:
    gunicorn = serve("echo")
    with ExitStack() as stack:
        connections = [connect(gunicorn, stack) for _ in range(200)]
        with stopped(gunicorn):
            for connection in connections:
                connection.send(b"nonsense\r\n\r\n")
        for connection in connections:
            assert [answer.status for answer in connection.answers()] == [400]

    def left_out() -> int:
        return sum(map(int, re.findall(r"(\d+) more warnings", gunicorn.text)))

    wait_for(lambda: gunicorn.text.count("Invalid request") + left_out() == 200)
    assert left_out() > 0


HOOK = """
def post_fork(server, worker):
    def may_send_body(environ):
        assert "wsgi.input" not in environ
        worker.log.info("asked for %s", environ["PATH_INFO"])
        return environ["PATH_INFO"] != "/no"
    worker.may_send_body = may_send_body
"""


def test_a_hook_decides_whether_a_body_is_received(serve: Serve) -> None:
    gunicorn = serve("echo", "--log-level", "info", config=HOOK)
    for framing in ("Content-Length: 5", CHUNKED):
        for fields in ((), ("Expect: 100-continue",)):
            with Connection(gunicorn.address) as connection:
                connection.send(request("/no", framing, *fields, method="POST"))
                (answer,) = connection.answers()
            assert (answer.status, answer.body) == (200, b"")
            assert answer["Connection"] == "close"
    with Connection(gunicorn.address) as connection:
        # What comes behind it is no request: it is, or may be, the body.
        connection.send(request("/no", CHUNKED, method="POST") + request("/smuggled"))
        assert len(connection.answers()) == 1
    with Connection(gunicorn.address) as connection:
        connection.send(request("/yes", "Content-Length: 5", method="POST"), b"abcde")
        answer = connection.answer()
        assert answer is not None
        assert answer.body == b"abcde"
        answer = connection.send(request("/whole", method="POST", body=b"abcde")).answer()
        assert answer is not None
        assert answer.body == b"abcde"
    assert gunicorn.text.count("asked for /no") == 5
    assert gunicorn.text.count("asked for /yes") <= 1
    assert "asked for /whole" not in gunicorn.text
    assert "asked for /smuggled" not in gunicorn.text


@pytest.mark.parametrize("how", ["flag", "variable", "file"])
def test_threads_that_would_do_nothing_are_told_of(how: str, serve: Serve) -> None:
    gunicorn = serve(
        "echo",
        *(("--threads", "4") if how == "flag" else ()),
        config="threads = 4" if how == "file" else "",
        environ={"GUNICORN_CMD_ARGS": "--threads 4"} if how == "variable" else {},
    )
    assert "threads = 4 has no effect" in gunicorn.text
