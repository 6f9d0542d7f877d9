"""What is done for each request is no more than a small one needs."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterable
from typing import Any

import pytest
from gunicorn.config import Config

from app.worker import request_reader
from app.worker.head import HeadParser
from app.worker.request import Head, Request
from app.worker.request_reader import RequestReader
from app.worker.response import Part, Response
from app.worker.response_writer import ResponseWriter

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
TEMPLATE = {"REMOTE_ADDR": "127.0.0.1", "SERVER_NAME": "localhost", "SERVER_PORT": "80"}


class Policy:
    max_body_bytes = 1000

    def may_send_body(self, environ: dict[str, Any], /) -> bool:
        return True


@pytest.fixture
def reader() -> RequestReader:
    return RequestReader(Policy(), HeadParser(Config(), trusted=False), dict(TEMPLATE))


def test_a_body_that_arrives_with_its_head_takes_no_buffer(
    reader: RequestReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_reader, "BodyBuffer", None)
    reader.buffer = HEAD % 5 + b"first" + HEAD % 6 + b"second"
    for body in (b"first", b"second"):
        request = reader.receive()
        assert request is not None
        assert request.environ["wsgi.input"].read() == body
        assert request.body_size == len(body)
    assert not reader.buffer


def test_the_size_of_a_body_is_known_however_it_arrives(reader: RequestReader) -> None:
    reader.buffer = HEAD % 5 + b"fi"
    assert reader.receive() is None
    reader.buffer = b"rst"
    request = reader.receive()
    assert request is not None
    assert request.body_size == 5
    reader.buffer = (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nfirst\r\n0\r\n\r\n"
    )
    request = reader.receive()
    assert request is not None
    assert request.body_size == 5


def test_a_body_that_has_arrived_is_limited_like_any_other(reader: RequestReader) -> None:
    reader.buffer = HEAD % 1001 + b"a" * 1001
    with pytest.raises(request_reader.Rejection, match="1,001"):
        reader.receive()


def answered(returned: Iterable[bytes]) -> tuple[int, bytes]:
    """Return in how many steps a response is framed, and what it is on the wire."""
    out: deque[Part] = deque()
    request = Request(Head({}, "GET", "/", "/", ""), {})
    response = Response(request, out, keep_alive=True)

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return returned

    response.call(application)
    steps = 1
    if response.is_whole:
        response.write_whole()
    else:
        while response.write_next():
            steps += 1
        response.finish()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer = ResponseWriter(ours)
        writer.parts.extend(out)
        assert writer.flush()
        return steps, theirs.recv(4096)


@pytest.mark.parametrize("returned", [[b"one"], (b"one",), [b""]])
def test_an_answer_of_one_part_is_framed_in_one_step(returned: Iterable[bytes]) -> None:
    steps, sent = answered(returned)
    assert steps == 1
    [body] = returned
    assert sent.endswith(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


def test_other_answers_are_framed_to_their_ends() -> None:
    assert answered([])[0] == 1
    steps, sent = answered([b"one", b"two"])
    assert steps == 3
    assert sent.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
