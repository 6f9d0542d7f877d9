"""Requests that come in pieces: what the application sees never depends on where they were cut."""

from __future__ import annotations

import pytest

from tests.worker.conftest import Gunicorn
from tests.worker.differential import Served, served
from tests.worker.wire import Connection, all_answers, ask, chunked, exchange, request

REQUESTS = {
    "a GET": request("/a?b=c", "X-Field: value"),
    "a POST": request(
        "/", "Content-Type: text/plain", method="POST", body=b"GET / HTTP/1.1\r\n\r\n"
    ),
    "a chunked POST": request("/", "Transfer-Encoding: chunked", method="POST")
    + b'5;a="b"\r\nabcde\r\n'
    + chunked(b"\r\n0\r\n\r\n", b"0123456789abcdef", trailers=b"X-Sum: 1\r\n"),
    "a POST that expects 100-continue": request(
        "/", "Expect: 100-continue", method="POST", body=b"abcde"
    ),
    "a pipelined pair": request("/b", method="POST", body=b"abcde") + request("/a"),
    "a pipelined pair, the first chunked": request("/b", "Transfer-Encoding: chunked", method="PUT")
    + chunked(b"abcde")
    + request("/a", method="HEAD"),
}


def together(server: Gunicorn, data: bytes) -> Served:
    seen = served(all_answers(exchange(server.address, data)))
    assert seen, f"not served: {data!r}"
    return seen


@pytest.mark.parametrize("name", REQUESTS)
def test_every_split_into_two_segments_is_one_request(name: str, server: Gunicorn) -> None:
    data = REQUESTS[name]
    expected = together(server, data)
    connections = [Connection(server.address) for _ in range(1, len(data))]
    try:
        for at, connection in enumerate(connections, 1):
            connection.send(data[:at])
        # Once a later connection is answered, the server has read all these beginnings.
        ask(server.address)
        for at, connection in enumerate(connections, 1):
            connection.send(data[at:]).end()
        for at, connection in enumerate(connections, 1):
            received = connection.receive_all()
            assert served(all_answers(received)) == expected, (
                f"sent: {data[:at]!r}, then {data[at:]!r}\nreceived: {received!r}"
            )
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_comes_byte_by_byte_is_one_request(name: str, server: Gunicorn) -> None:
    data = REQUESTS[name]
    expected = together(server, data)
    with Connection(server.address) as connection:
        for at in range(len(data)):
            connection.send(data[at : at + 1])
            if at % 8 == 0:
                ask(server.address)  # the server has read so far, and others are served meanwhile
        received = connection.end().receive_all()
    assert served(all_answers(received)) == expected, f"sent: {data!r}\nreceived: {received!r}"


def test_answers_come_in_the_order_of_the_requests(server: Gunicorn) -> None:
    targets = [f"/{number}" for number in range(300)]
    with Connection(server.address) as connection:
        answers = connection.send(b"".join(map(request, targets))).end().answers()
    assert [answer.status for answer in answers] == [200] * len(targets)
    assert [environ["RAW_URI"] for environ, _ in served(answers)] == targets


def test_a_body_of_many_segments_comes_whole(server: Gunicorn) -> None:
    pieces = [bytes([n % 256]) * (n * 7 % 5000) for n in range(400)]
    body = b"".join(pieces)
    head = request("/", f"Content-Length: {len(body)}", method="POST")
    stream = request("/", "Transfer-Encoding: chunked", method="POST")
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece]
    with Connection(server.address) as connection:
        plain = connection.send(head, *pieces).answer()
        framed = connection.send(stream, *chunks, b"0\r\n\r\n").answer()
    assert plain is not None
    assert plain.body == body
    assert framed is not None
    assert framed.body == body


def test_the_last_request_of_a_client_that_says_no_more_is_answered(server: Gunicorn) -> None:
    """It has shut down its side of the connection; it still reads."""
    with Connection(server.address) as connection:
        answers = connection.send(request("/a") + request("/b")).end().answers()
    assert [environ["PATH_INFO"] for environ, _ in served(answers)] == ["/a", "/b"]
