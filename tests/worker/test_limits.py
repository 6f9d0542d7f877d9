"""What is too large, too slow or not understood is refused with a small problem document."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

import pytest

from tests.worker.conftest import Gunicorn, Serve, in_time, limits
from tests.worker.wire import Answer, Connection, ask, chunked, request

MAX_BODY = 1000
SECONDS = 0.5
"""The deadlines of the server that is `hurried`."""


@pytest.fixture(scope="module")
def limited(serve: Serve) -> Gunicorn:
    return serve(
        "echo",
        *("--limit-request-line", "200", "--limit-request-fields", "10"),
        *("--limit-request-field_size", "300"),
        config=limits(max_body_bytes=MAX_BODY),
    )


@pytest.fixture(scope="module")
def hurried(serve: Serve) -> Gunicorn:
    config = limits(
        max_body_bytes=MAX_BODY, headers_timeout_seconds=SECONDS, body_timeout_seconds=SECONDS
    )
    return serve("echo", "--keep-alive", "1", config=config)


def refusal(gunicorn: Gunicorn, *segments: bytes, end: bool = False) -> Answer:
    """Send segments, and give the one answer after which the server closed the connection."""
    with Connection(gunicorn.address) as connection:
        connection.send(*segments)
        if end:
            connection.end()
        answers = connection.answers()
    assert len(answers) == 1, f"sent: {segments!r}, received: {answers!r}"
    return answers[0]


def assert_is_problem(answer: Answer, status: int) -> None:
    assert answer.status == status, answer
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["Connection"].lower() == "close"
    assert answer["Date"]
    document = json.loads(answer.body)
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]


LENGTH = f"Content-Length: {MAX_BODY + 1}"
CHUNKED = "Transfer-Encoding: chunked"

REFUSED = {
    "nonsense": (400, b"nonsense\r\n\r\n"),
    "a field without a colon": (400, request("/", "X")),
    "a lower-case method": (400, request(method="get")),
    "a version of two": (400, request(version="2.0")),
    "two lengths": (400, request("/", "Content-Length: 1", body=b"a")),
    "a length and a coding": (400, request("/", CHUNKED, body=b"a")),
    "a chunk without a size": (400, request("/", CHUNKED, method="POST") + b"x\r\n"),
    "a field folded": (400, request("/", "X: a\r\n b")),
    "a body over the maximum": (413, request("/", LENGTH, method="POST")),
    "a body over the maximum, and sent": (
        413,
        request("/", LENGTH, method="POST") + b"a" * (MAX_BODY + 1),
    ),
    "a much larger body, and sent": (413, request("/", method="POST", body=b"a" * 3_000_000)),
    "a body over the maximum that expects": (
        413,
        request("/", LENGTH, "Expect: 100-continue", method="POST"),
    ),
    "chunks over the maximum": (
        413,
        request("/", CHUNKED, method="POST") + chunked(b"a" * MAX_BODY, b"a"),
    ),
    "a chunk that announces more than the maximum": (
        413,
        request("/", CHUNKED, method="POST") + b"%x\r\n" % (MAX_BODY + 1) + b"a" * (MAX_BODY + 1),
    ),
    "chunks without an end": (413, request("/", CHUNKED, method="POST") + b"1\r\na\r\n" * 50_000),
    "a long target": (414, request("/" + "a" * 300)),
    "a long target without an end": (414, b"GET /" + b"a" * 300),
    "an endless target": (414, b"GET /" + b"a" * 1_000_000),
    "an expectation nobody knows": (417, request("/", "Expect: tea")),
    "a long field": (431, request("/", "X: " + "a" * 400)),
    "a long name": (431, request("/", "X" * 400 + ": a")),
    "a field without an end": (431, b"GET / HTTP/1.1\r\nX: " + b"a" * 1_000_000),
    "many fields": (431, request("/", *["X: 1"] * 10)),
    "fields without an end": (431, b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 100_000),
    "trailers without an end": (
        431,
        request("/", CHUNKED, method="POST") + b"0\r\n" + b"X: 1\r\n" * 100_000,
    ),
    "a chunk's extension without an end": (
        400,
        request("/", CHUNKED, method="POST") + b"1;" + b"a" * 1_000_000,
    ),
    "a coding nobody knows": (501, request("/", "Transfer-Encoding: x", method="POST")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_told_why_and_the_connection_closed(
    name: str, limited: Gunicorn
) -> None:
    status, data = REFUSED[name]
    assert_is_problem(refusal(limited, data), status)


@pytest.mark.parametrize("name", REFUSED)
def test_what_comes_before_a_refused_request_is_answered_and_nothing_after(
    name: str, limited: Gunicorn
) -> None:
    status, data = REFUSED[name]
    with Connection(limited.address) as connection:
        answers = connection.send(request("/before") + data + request("/after")).answers()
    assert [answer.status for answer in answers] == [200, status]


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (
            request("/", LENGTH, method="POST"),
            f"The body of {MAX_BODY + 1:,} bytes exceeds the limit of {MAX_BODY:,} bytes "
            "(max_body_bytes).",
        ),
        (
            request("/", f"Content-Length: {'9' * 200}", method="POST"),
            f"The body of more than 10^18 bytes exceeds the limit of {MAX_BODY:,} bytes "
            "(max_body_bytes).",
        ),
        (
            request("/" + "a" * 200),
            "The request line of 214 bytes exceeds the limit of 200 bytes (limit_request_line).",
        ),
    ],
)
def test_a_size_over_a_limit_is_named_with_the_limit_and_its_setting(
    data: bytes, detail: str, limited: Gunicorn
) -> None:
    assert json.loads(refusal(limited, data).body)["detail"] == detail


def test_what_just_fits_the_limits_is_served(limited: Gunicorn) -> None:
    target = "/" + "a" * (200 - len("GET / HTTP/1.1"))
    fields = ["X: " + "a" * (300 - len("X: \r\n")), *["X: 1"] * 8]
    assert ask(limited.address, target, *fields).status == 200
    body = b"a" * MAX_BODY
    assert ask(limited.address, "/", method="POST", body=body).body == body
    with Connection(limited.address) as connection:
        head = request("/", "Transfer-Encoding: chunked", method="POST")
        answer = connection.send(head + chunked(body[:-1], body[-1:])).answer()
    assert answer is not None
    assert answer.body == body


def test_a_refused_head_is_answered_without_a_body_that_would_be_taken_for_more(
    limited: Gunicorn,
) -> None:
    """The client may not expect a body; the connection is closed behind it anyway."""
    with Connection(limited.address) as connection:
        received = connection.send(request("/", "Expect: tea", method="HEAD")).receive_all()
    assert received.startswith(b"HTTP/1.1 417 ")
    assert b"\r\nconnection: close\r\n" in received.lower()


def test_a_body_is_asked_for_where_the_client_waits_to_be_asked(limited: Gunicorn) -> None:
    with Connection(limited.address) as connection:
        connection.send(request("/", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        interim = connection.answer()
        assert interim is not None
        assert (interim.status, interim.fields) == (100, ())
        answer = connection.send(b"abcde").answer()
    assert answer is not None
    assert (answer.status, answer.body) == (200, b"abcde")


def test_a_body_that_is_there_or_empty_is_not_asked_for_more_than_once(limited: Gunicorn) -> None:
    for data in (
        request("/", "Expect: 100-continue", method="POST", body=b"abcde"),
        request("/", "Expect: 100-continue"),
        request("/", "Expect: 100-continue", method="POST", body=b""),
    ):
        with Connection(limited.address) as connection:
            statuses = [answer.status for answer in connection.send(data).end().answers()]
        assert statuses in ([200], [100, 200]), data


HALF = {
    "half a request line": b"GET /a",
    "half a head": b"GET / HTTP/1.1\r\nHost: a\r\nX",
    "a head without its end": b"GET / HTTP/1.1\r\nHost: a\r\n",
    "half a body": request("/", "Content-Length: 10", method="POST") + b"abcde",
    "no body": request("/", "Content-Length: 10", method="POST"),
    "half a chunk": request("/", CHUNKED, method="POST") + b"a\r\nabcde",
    "no last chunk": request("/", CHUNKED, method="POST") + b"5\r\nabcde\r\n",
    "half a trailer": request("/", CHUNKED, method="POST") + b"0\r\nX: 1\r\n",
}


@pytest.mark.parametrize("before", [b"", request()], ids=["alone", "after another"])
def test_a_request_that_stays_half_is_refused_at_the_deadline(
    before: bytes, hurried: Gunicorn
) -> None:
    begun = time.monotonic()
    with ExitStack() as stack:
        connections = {
            name: stack.enter_context(Connection(hurried.address)).send(before, data)
            for name, data in HALF.items()
        }
        for name, connection in connections.items():
            *served, last = connection.answers()
            assert [answer.status for answer in served] == [200] * bool(before), name
            assert_is_problem(last, 408)
            assert time.monotonic() - begun >= SECONDS * 0.9, name


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nX: ",
        request("/", "Content-Length: 100000", method="POST")[:-2] + b"X: ",
        request("/", "Content-Length: 900", method="POST"),
        request("/", CHUNKED, method="POST") + b"300\r\n",
    ],
)
def test_a_request_that_drips_is_refused_at_the_deadline(start: bytes, hurried: Gunicorn) -> None:
    """Each byte that comes doesn't begin the wait anew."""
    with Connection(hurried.address) as connection:
        connection.send(start)
        connection.socket.settimeout(0.02)
        sent = 0
        received = b""
        while sent < 250 and not received:
            connection.send(b"a")
            sent += 1
            try:
                received = connection.socket.recv(65536)
            except TimeoutError:
                continue
    assert received.startswith(b"HTTP/1.1 408 "), f"{sent} bytes dripped; received {received!r}"


@pytest.mark.parametrize("name", HALF)
def test_a_half_request_of_a_client_that_says_no_more_is_not_served(
    name: str, limited: Gunicorn
) -> None:
    with Connection(limited.address) as connection:
        answers = connection.send(HALF[name]).end().answers()
    assert [answer.status for answer in answers] in ([], [400], [408])


def test_a_connection_that_never_says_anything_is_closed_in_silence(hurried: Gunicorn) -> None:
    with Connection(hurried.address) as connection:
        assert connection.receive_all() == b""


def test_an_idle_kept_connection_is_closed_in_silence(hurried: Gunicorn) -> None:
    with Connection(hurried.address) as connection:
        begun = time.monotonic()
        (answer,) = connection.send(request()).answers()
        assert time.monotonic() - begun >= 0.9  # --keep-alive 1
    assert answer["Connection"].lower() == "keep-alive"


def test_a_kept_connection_is_served_again_and_again_beyond_any_deadline(hurried: Gunicorn) -> None:
    def ask_again_and_again() -> list[Answer | None]:
        with Connection(hurried.address) as connection:
            answers = []
            for _ in range(4):
                answers.append(connection.send(request()).answer())
                time.sleep(0.4)
            return answers

    answers = in_time(4 * 0.4 + 0.5, ask_again_and_again)  # no pause was as long as --keep-alive
    assert [answer and answer.status for answer in answers] == [200] * 4


def test_an_empty_line_after_a_request_is_no_request_that_is_late(
    hurried: Gunicorn, limited: Gunicorn
) -> None:
    """Old clients send one after a body; it is ignored, and the connection is idle."""
    post = request("/", method="POST", body=b"a") + b"\r\n"
    with Connection(hurried.address) as connection, Connection(hurried.address) as other:
        assert other.send(post).answer() is not None
        answers = connection.send(post).answers()
        assert [answer.status for answer in answers] == [200]
        assert [answer.status for answer in other.answers()] == []
    with Connection(limited.address) as connection:
        for _ in range(3):
            answer = connection.send(post).answer()
            assert answer is not None
            assert answer.status == 200


@pytest.fixture(scope="module")
def holding(serve: Serve) -> Gunicorn:
    """A worker that keeps no more than 4 MB of what isn't whole."""
    return serve("zoo", config=limits(max_held_bytes=4_000_000, max_body_bytes=3_990_000))


def upload(size: int) -> bytes:
    return request("/unread", f"Content-Length: {size}", method="POST")


def let_it_read(gunicorn: Gunicorn) -> None:
    """Give the worker turns enough to have read what was sent before."""
    for _ in range(20):
        assert ask(gunicorn.address).status == 200


def assert_holds_nothing(gunicorn: Gunicorn) -> None:
    """Bodies fit that would not if a tenth of a megabyte were still counted."""
    for _ in range(3):
        with Connection(gunicorn.address) as connection:
            connection.send(upload(3_990_000) + b"a" * 3_900_000)
            let_it_read(gunicorn)
            answer = connection.send(b"a" * 90_000).answer()
        assert answer is not None
        assert answer.status == 200


def test_the_largest_of_what_is_held_is_refused_and_the_others_are_served(
    holding: Gunicorn,
) -> None:
    with ExitStack() as stack:
        large, *medium = (stack.enter_context(Connection(holding.address)) for _ in range(3))
        large.send(upload(2_000_000) + b"a" * 1_900_000)
        for connection in medium:
            connection.send(upload(2_000_000) + b"a" * 900_000)
        let_it_read(holding)
        small = [stack.enter_context(Connection(holding.address)) for _ in range(10)]
        for connection in small:
            connection.send(upload(100_000) + b"a" * 60_000)
        let_it_read(holding)
        assert_is_problem(refused := large.answers()[0], 503)
        assert refused["Retry-After"].isdigit()
        for connection in small:
            answer = connection.send(b"a" * 40_000).answer()
            assert answer is not None
            assert answer.status == 200
        for connection in medium:
            answer = connection.send(b"a" * 1_100_000).answer()
            assert answer is not None
            assert answer.status == 200
    assert_holds_nothing(holding)


def test_whoever_holds_the_most_itself_is_refused(holding: Gunicorn) -> None:
    with Connection(holding.address) as other, Connection(holding.address) as connection:
        other.send(upload(2_000_000) + b"a" * 1_000_000)
        let_it_read(holding)
        (answer,) = connection.send(upload(3_900_000) + b"a" * 3_800_000).answers()
        assert_is_problem(answer, 503)
        answers = other.send(b"a" * 1_000_000).end().answers()
        assert [answer.status for answer in answers] == [200]
    assert_holds_nothing(holding)


def test_nothing_is_held_of_clients_that_left_or_were_refused_or_served(
    holding: Gunicorn,
) -> None:
    chunks = request("/unread", CHUNKED, method="POST") + b"100000\r\n" + b"a" * 0x100000
    for data in (
        upload(2_000_000) + b"a" * 1_500_000,
        b"GET / HTTP/1.1\r\n" + b"X: %s\r\n" % (b"a" * 8000) * 60,
        chunks,
    ):
        with Connection(holding.address) as left:
            left.send(data)
            let_it_read(holding)
        left = Connection(holding.address).send(data)
        let_it_read(holding)
        left.reset()
    with Connection(holding.address) as connection:
        connection.send(chunks)
        let_it_read(holding)
        assert_is_problem(connection.send(b"nonsense\r\n").answers()[0], 400)
    with Connection(holding.address) as connection:
        connection.send(chunks)
        let_it_read(holding)
        answer = connection.send(b"\r\n0\r\n\r\n").answer()
        assert answer is not None
        assert answer.status == 200
    assert_holds_nothing(holding)


@pytest.fixture(scope="module")
def worded(serve: Serve) -> Gunicorn:
    config = limits(
        delegates_rejections=True, max_body_bytes=MAX_BODY, body_timeout_seconds=SECONDS
    )
    return serve("wording", config=config)


def test_an_application_that_is_asked_words_the_refusals(worded: Gunicorn) -> None:
    for data, status, method, path in (
        (b"nonsense\r\n\r\n", 400, "UNREAD", "/"),
        (request("/a", "X"), 400, "UNREAD", "/"),
        (b"GET /" + b"a" * 100_000, 414, "UNREAD", "/"),
        (request("/a", LENGTH, method="POST"), 413, "POST", "/a"),
        (request("/a", CHUNKED, method="PUT") + b"x\r\n", 400, "PUT", "/a"),
        (request("/a", "Content-Length: 10", method="POST") + b"abc", 408, "POST", "/a"),
    ):
        answer = refusal(worded, data)
        assert answer.status == status
        assert answer.json() == [method, path, ""]
        assert answer["X-Detail"]
        assert answer["Connection"].lower() == "close"
